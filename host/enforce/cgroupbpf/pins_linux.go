//go:build amd64 || arm64

package cgroupbpf

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
)

// What is pinned has a folder for each version of the kernel's part and each cgroup:
// its maps, which no other version can use, and its links, which any version can give
// other programs.

// A version is a kernel part.
type version struct {
	load   func() (*ebpf.CollectionSpec, error)
	object []byte // tells it from others
}

var this = version{bpf.LoadRedirect, bpf.Object()}

// pinDir is where a version is pinned for the cgroup; empty if it is not.
func (a *Attachment) pinDir() string {
	if a.opts.PinDir == "" {
		return ""
	}
	h := sha256.New()
	h.Write(a.version.object)
	h.Write([]byte(filepath.Clean(a.opts.Cgroup)))
	return filepath.Join(a.opts.PinDir, "calloutd-"+hex.EncodeToString(h.Sum(nil))[:16])
}

// makePinDir makes the folder, where the kernel can keep what is pinned.
func makePinDir(dir, parent string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	var at unix.Statfs_t
	if err := unix.Statfs(dir, &at); err != nil {
		return fmt.Errorf("cgroupbpf: %w", &os.PathError{Op: "pin", Path: dir, Err: err})
	}
	if at.Type != unix.BPF_FS_MAGIC {
		return errors.Join(fmt.Errorf("cgroupbpf: %s is in no BPF file system, which is what keeps programs: `mount -t bpf bpf /sys/fs/bpf` mounts one", parent), os.Remove(dir))
	}
	return nil
}

// A pin is a link that is pinned.
type pin struct {
	link.Link
	dir    string // of its version
	at     ebpf.AttachType
	cgroup uint64 // may be gone; 0 is
}

// pins are all of a folder, of whatever version and cgroup.
func pins(dir string) (all []pin, err error) {
	paths, _ := filepath.Glob(filepath.Join(dir, "calloutd-*", "link-*")) // The pattern is right.
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("cgroupbpf: %s: %w", path, err)
		}
		info, err := l.Info()
		if err != nil || info.Cgroup() == nil {
			return all, fmt.Errorf("cgroupbpf: %s is no link to a cgroup: %w", path, errors.Join(err, l.Close()))
		}
		all = append(all, pin{l, filepath.Dir(path), ebpf.AttachType(info.Cgroup().AttachType), info.Cgroup().CgroupId})
	}
	return all, nil
}

// oldPins is what was pinned for a cgroup before: links that are in force, and folders.
type oldPins struct {
	links []pin
	dirs  map[string]bool
}

// findOld finds those of a cgroup; and those of cgroups that are gone, which another one
// at the same path has nothing of, in the folders that also names.
func findOld(pinDir, path string, cgroup uint64, also func(dir string) bool) (*oldPins, error) {
	old := &oldPins{dirs: map[string]bool{}}
	if pinDir == "" {
		return old, nil
	}
	all, err := pins(pinDir)
	errs := []error{err}
	for _, p := range all {
		switch {
		case p.cgroup != 0 && p.cgroup == cgroup:
			old.links, old.dirs[p.dir] = append(old.links, p), true
		case also(p.dir) && !exists(p.cgroup, path):
			old.dirs[p.dir] = true
			errs = append(errs, p.Unpin(), p.Close())
		default:
			errs = append(errs, p.Close())
		}
	}
	return old, errors.Join(errs...)
}

// take returns a link that is the caller's then, to use for a hook.
func (o *oldPins) take(at ebpf.AttachType) (pin, bool) {
	i := slices.IndexFunc(o.links, func(p pin) bool { return p.at == at })
	if i < 0 {
		return pin{}, false
	}
	p := o.links[i]
	o.links = slices.Delete(o.links, i, i+1)
	return p, true
}

// discard takes away what nobody took, but for one folder.
func (o *oldPins) discard(but string) error {
	var errs []error
	for _, p := range o.links {
		errs = append(errs, p.Detach()) // Somebody may have it open.
	}
	errs = append(errs, o.close())
	for dir := range o.dirs {
		if dir != but {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

func (o *oldPins) close() error {
	var errs []error
	for _, p := range o.links {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// replace gives a link that is pinned for the cgroup, by whatever version, another
// program: there is no moment without.
func (a *Attachment) replace(p pin, prog *ebpf.Program, path string) error {
	if err := p.Update(prog); err != nil {
		return fmt.Errorf("cgroupbpf: the programs pinned in %s cannot be replaced: %w\n`calloutd attach --detach --cgroup %s --pin %s` takes them away", p.dir, err, a.opts.Cgroup, a.opts.PinDir)
	}
	if p.dir == filepath.Dir(path) {
		return nil
	}
	return p.Pin(path)
}

// Detach takes away what is pinned for a cgroup in a folder, of whatever version, and
// what is pinned there for cgroups that are gone. It needs no policy, and nobody who
// runs: what an Attachment has in force is detached, too.
func Detach(cgroup, pinDir string) error {
	id, err := cgroupID(cgroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	old, err := findOld(pinDir, cgroup, id, func(string) bool { return true })
	if len(old.dirs) == 0 && err == nil {
		return fmt.Errorf("cgroupbpf: nothing of calloutd is pinned in %s for %s", pinDir, cgroup)
	}
	return errors.Join(err, old.discard(""))
}

// exists reports whether there is a cgroup with an ID in the hierarchy of a path, which
// itself may be gone. A link can have one for a moment that is gone.
func exists(id uint64, path string) bool {
	fd := -1
	for err := error(unix.ENOENT); errors.Is(err, unix.ENOENT); path = filepath.Dir(path) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if fd < 0 {
		return true // Nobody knows.
	}
	defer unix.Close(fd)
	const kernfs = 0xfe // FILEID_KERNFS
	found, err := unix.OpenByHandleAt(fd, unix.NewFileHandle(kernfs, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH|unix.O_CLOEXEC)
	if err == nil {
		unix.Close(found)
	}
	return !errors.Is(err, unix.ESTALE)
}

// cgroupID is what the kernel calls a cgroup. Of other folders it is an error.
func cgroupID(dir string) (uint64, error) {
	var at unix.Statfs_t
	switch err := unix.Statfs(dir, &at); {
	case errors.Is(err, unix.ENOENT):
		return 0, fmt.Errorf("%w: mkdir in a cgroup makes one", &os.PathError{Op: "cgroup", Path: dir, Err: err})
	case err != nil:
		return 0, &os.PathError{Op: "cgroup", Path: dir, Err: err}
	}
	if at.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, fmt.Errorf("%s is in no cgroup v2 hierarchy: its folders are below /sys/fs/cgroup or /sys/fs/cgroup/unified", dir)
	}
	return inodeOf(dir)
}
