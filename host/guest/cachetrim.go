package guest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// cacheDirSize has room for a day of builds of large modules.
	cacheDirSize = 1 << 30
	// unusedFor is after how long goes what nobody has used: most of it is of other versions,
	// of the module or of calloutd.
	unusedFor = 30 * 24 * time.Hour
	// usedLately is how long stays what was written or used: somebody may be about to read it.
	usedLately = 10 * time.Minute
	// leastKept is what a module counts at least, so that there are not too many to look at.
	leastKept = 64 << 10
)

// trim takes away what was used least lately, whichever version wrote it, until the rest is
// within the limit. It is for when something was written: at a start that finds all it needs
// nobody looks at everything.
func (c *cache) trim() {
	if c.most <= 0 {
		return
	}
	if err := trimFolder(filepath.Dir(c.dir), filepath.Base(c.dir), c.most, usedLately); err != nil {
		c.untrimmed.Do(func() { c.say("the cache of compiled modules may take more than %d MiB: %v", c.most>>20, err) })
	}
}

// trimFolder is trim for a folder in which this program uses that of one version.
func trimFolder(dir, version string, most int64, lately time.Duration) error {
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil // Somebody else does it.
	}
	defer unlock()
	root, err := os.OpenRoot(dir) // No link leads out of it.
	if err != nil {
		return err
	}
	defer root.Close()
	all, err := lookThrough(root, version)
	slices.SortFunc(all, func(a, b *kept) int { return a.used.Compare(b.used) })
	var size int64
	for _, k := range all {
		size += k.counts()
	}
	for _, k := range all {
		idle := time.Since(k.used)
		if idle < lately || size <= most && idle < unusedFor {
			break
		}
		if failed := k.remove(root); failed != nil {
			err = cmp.Or(err, failed)
			continue
		}
		size -= k.counts()
	}
	return err
}

// A kept is what goes at once.
type kept struct {
	files   []string // in the order in which they go
	folders []string // which go when they are empty
	size    int64
	used    time.Time // the last time
}

func (k *kept) add(files ...file) {
	for _, f := range files {
		k.files = append(k.files, f.path)
		k.size += f.info.Size()
		k.usedAt(f.info)
	}
}

func (k *kept) usedAt(info fs.FileInfo) {
	if info.ModTime().After(k.used) {
		k.used = info.ModTime()
	}
}

func (k *kept) counts() int64 {
	if len(k.files) == 0 {
		return 0
	}
	return max(k.size, leastKept)
}

// remove leaves an entry whose machine code could not be taken away.
func (k *kept) remove(root *os.Root) error {
	for _, name := range k.files {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range k.folders {
		_ = root.Remove(name) // It is not empty.
	}
	return nil
}

// lookThrough finds what is the cache's own: a user may have other files there.
func lookThrough(root *os.Root, version string) (all []*kept, err error) {
	inside, err := look(root, ".")
	for _, f := range inside {
		if !f.info.IsDir() || !strings.HasPrefix(f.path, versionPrefix) {
			continue
		}
		p, err2 := lookAt(root, f.path)
		err = cmp.Or(err, err2)
		all = append(all, p.modules()...)
		if f.path != version { // A program of that version makes them again.
			gone := &kept{}
			for _, d := range append(p.folders, f) {
				gone.folders = append(gone.folders, d.path)
				gone.usedAt(d.info)
			}
			all = append(all, gone)
			takeAwayOld(filepath.Join(root.Name(), f.path), compilingIn)
		}
	}
	// Older versions of calloutd had everything here. Without their entries it may be another
	// program that keeps its machine code where wazero does.
	old, err2 := lookAt(root, ".")
	if len(old.entries) > 0 {
		k := new(kept)
		k.add(slices.Concat(old.code, old.entries)...)
		for _, d := range old.folders {
			k.folders = append(k.folders, d.path)
		}
		all = append(all, k)
	}
	return all, cmp.Or(err, err2)
}

// A place is a folder with entries, and with folders for machine code.
type place struct{ entries, code, folders []file }

func lookAt(root *os.Root, dir string) (p place, err error) {
	inside, err := look(root, dir)
	for _, f := range inside {
		name := path.Base(f.path)
		switch {
		case f.info.IsDir() && strings.HasPrefix(name, codePrefix):
			code, err2 := look(root, f.path)
			err = cmp.Or(err, err2)
			for _, f := range code {
				if f.info.Mode().IsRegular() && isSum(path.Base(f.path)) {
					p.code = append(p.code, f)
				}
			}
			if len(code) > 0 || dir != "." {
				p.folders = append(p.folders, f)
			}
		case f.info.Mode().IsRegular() && isEntry(name):
			p.entries = append(p.entries, f)
		}
	}
	return p, err
}

// modules are what is there of one module each.
func (p *place) modules() (all []*kept) {
	of := map[string]*kept{} // by the name of the machine code
	for _, f := range slices.Concat(p.code, p.entries) {
		name := strings.TrimSuffix(path.Base(f.path), entrySuffix)
		name = name[strings.LastIndex(name, "-")+1:]
		if of[name] == nil {
			of[name] = new(kept)
			all = append(all, of[name])
		}
		of[name].add(f)
	}
	return all
}

// look lists what of a folder this user owns: files and folders, no links.
func look(root *os.Root, dir string) (own []file, err error) {
	inside, err := fs.ReadDir(root.FS(), dir)
	for _, d := range inside {
		name := path.Join(dir, d.Name())
		if info, err := root.Lstat(name); err == nil && mine(info) { // It may be gone.
			own = append(own, file{name, info})
		}
	}
	return own, err
}

type file struct {
	path string
	info fs.FileInfo
}

// isEntry knows those of older versions, too, which do not name their machine code.
func isEntry(name string) bool {
	name, prefixed := strings.CutPrefix(name, entryPrefix)
	name, suffixed := strings.CutSuffix(name, entrySuffix)
	key, code, named := strings.Cut(name, "-")
	return prefixed && suffixed && isSum(key) && (!named || isSum(code))
}

func isSum(name string) bool {
	sum, err := hex.DecodeString(name)
	return err == nil && len(sum) == sha256.Size
}
