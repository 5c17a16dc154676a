package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/guest/meter"
)

const (
	maxMetered  = 16 * MaxModuleSize // of a metered form that is read
	compilingIn = "compiling-"
	sayUnkept   = "compiled modules are not kept: %v"
	entryPrefix = "metered-"
	entrySuffix = ".wasm"
	codePrefix  = "wazero-"
)

// A cache keeps the metered form of modules that were checked, and their machine code,
// in files that wazero names. wazero has a sum of a part of those only, so an entry, which
// is what was metered, has the sum of both, and nothing is given to wazero that was not
// looked at: every file of machine code has an entry, before it is there, which is named
// after it. What goes wrong costs time only, and is said once.
type cache struct {
	dir, code string // of entries, and in it wazero's; empty: nothing is kept
	most      int64  // bytes that dir and those of other versions may have; 0: nothing is taken away
	logf      func(format string, args ...any)

	damaged, notKept, untrimmed sync.Once
}

// A header is what an entry begins with. Its sum is of the file's name and all that follows, so
// that a file which took the place of another one is found, too.
type header struct {
	Sum      [sha256.Size]byte
	CodeSize uint64
	CodeSum  [sha256.Size]byte
}

// open has wazero make its folder in dir, which is for one version of it, and so is the only one.
func (c *cache) open(dir string) (wazero.CompilationCache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	kept, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, err
	}
	folders, err := fs.Glob(os.DirFS(dir), codePrefix+"*")
	if err != nil || len(folders) != 1 {
		return nil, fmt.Errorf("%s has %d folders of wazero's, expected 1", dir, len(folders))
	}
	c.dir, c.code = dir, filepath.Join(dir, folders[0])
	return kept, nil
}

// key begins the names of a module's entries, by all that its metered form depends on. Each
// kind of processor has machine code of its own.
func (c *cache) key(pages uint32, f form, wasm []byte) string {
	h := sha256.New()
	for _, n := range []uint32{meter.Version, pages, uint32(f)} {
		h.Write(binary.LittleEndian.AppendUint32(nil, n))
	}
	h.Write(wasm)
	return fmt.Sprintf("%s%x-", entryPrefix, h.Sum(nil))
}

// get is the metered form of a module all of whose files are as they were written.
func (c *cache) get(key string) (metered []byte) {
	if c.code == "" {
		return nil
	}
	whole := true
	names, _ := fs.Glob(os.DirFS(c.dir), key+"*"+entrySuffix)
	for _, name := range names {
		code := c.codeOf(key, name)
		found, err := c.read(name, code)
		switch {
		case err == nil:
			metered = found
			_ = os.Chtimes(filepath.Join(c.dir, name), time.Time{}, time.Now()) // It was used.
		case !errors.Is(err, fs.ErrNotExist): // One that is not there was not written to the end.
			whole = false
			c.damaged.Do(func() { c.say("the cache of compiled modules: %v: what is damaged is compiled anew", err) })
			if _, unread := errors.AsType[*fs.PathError](err); !unread {
				_ = os.Remove(code) // They may be gone, or not ours.
				_ = os.Remove(filepath.Join(c.dir, name))
			}
		}
	}
	if !whole {
		return nil
	}
	return metered
}

// codeOf is the file with the machine code of an entry.
func (c *cache) codeOf(key, name string) string {
	return filepath.Join(c.code, strings.TrimSuffix(strings.TrimPrefix(name, key), entrySuffix))
}

func (c *cache) read(name, code string) (metered []byte, err error) {
	path := filepath.Join(c.dir, name)
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxMetered {
		return nil, fmt.Errorf("%s has %d bytes", path, size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	var h header
	n, err := binary.Decode(b, binary.LittleEndian, &h)
	if err != nil || h.Sum != h.sum(name, b[n:]) {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	g, size, err := openRegular(code)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if is, err := sumOf(g, min(size, int64(h.CodeSize))); err != nil || uint64(size) != h.CodeSize || is != h.CodeSum {
		return nil, fmt.Errorf("%s is damaged", code)
	}
	return b[n:], nil
}

func (h *header) sum(name string, metered []byte) (sum [sha256.Size]byte) {
	s := sha256.New()
	fmt.Fprintf(s, "%s\n%d\n%s", name, h.CodeSize, h.CodeSum[:])
	s.Write(metered)
	s.Sum(sum[:0])
	return sum
}

// openRegular opens a file if it is one, and says how long it is. Nobody waits at a pipe
// that is in its place, nor reads a device.
func openRegular(path string) (_ *os.File, size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file: %v", path, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// sumOf reads as much as a file had when it was opened: one that grows ends.
func sumOf(f io.Reader, size int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	_, err = io.CopyN(h, f, size)
	h.Sum(sum[:0])
	return sum, err
}

// put has a module compiled where nobody looks, and moves what it became to its place.
func (c *cache) put(ctx context.Context, config wazero.RuntimeConfig, key string, metered []byte) error {
	if err := os.MkdirAll(c.code, 0o700); err != nil { // Another version may have seen it empty, long ago.
		return err
	}
	dir, done, err := workIn(c.dir, compilingIn)
	if err != nil {
		return err
	}
	defer func() { _ = done() }() // The next one takes it away.
	if err := compileIn(ctx, dir, config, metered); err != nil {
		return err
	}
	code, err := fs.Glob(os.DirFS(dir), filepath.Base(c.code)+"/*")
	if err != nil || len(code) != 1 {
		return fmt.Errorf("%d files of machine code were made", len(code))
	}
	from := filepath.Join(dir, filepath.FromSlash(code[0]))
	f, size, err := openRegular(from)
	if err != nil {
		return err
	}
	h := header{CodeSize: uint64(size)}
	h.CodeSum, err = sumOf(f, size)
	f.Close()
	if err != nil {
		return err
	}
	name := key + filepath.Base(from) + entrySuffix
	h.Sum = h.sum(name, metered)
	var out bytes.Buffer
	if err := binary.Write(&out, binary.LittleEndian, h); err != nil {
		return err
	}
	out.Write(metered)
	written := filepath.Join(dir, name)
	if err := os.WriteFile(written, out.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(written, filepath.Join(c.dir, name)); err != nil {
		return err
	}
	if err := os.Rename(from, c.codeOf(key, name)); err != nil {
		return err
	}
	c.trim()
	return nil
}

// compileIn leaves the machine code of a module in a folder.
func compileIn(ctx context.Context, dir string, config wazero.RuntimeConfig, metered []byte) (err error) {
	kept, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return err
	}
	rt := wazero.NewRuntimeWithConfig(ctx, config.WithCompilationCache(kept))
	_, err = rt.CompileModule(ctx, metered)
	return errors.Join(err, rt.Close(ctx), kept.Close(ctx))
}

// workIn makes a folder to work in, which is gone when done, and takes away those in which
// somebody worked who ended.
func workIn(dir, prefix string) (made string, done func() error, err error) {
	takeAwayOld(dir, prefix)
	if made, err = os.MkdirTemp(dir, prefix); err != nil {
		return "", nil, err
	}
	unlock, err := lockFolder(made)
	if err != nil {
		os.RemoveAll(made)
		return "", nil, err
	}
	return made, func() error {
		defer unlock()
		return os.RemoveAll(made)
	}, nil
}

func takeAwayOld(dir, prefix string) {
	old, _ := fs.Glob(os.DirFS(dir), prefix+"*")
	for _, name := range old {
		takeAway(filepath.Join(dir, name))
	}
}

// takeAway takes away a folder in which nobody works.
func takeAway(dir string) {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || time.Since(info.ModTime()) < abandonedAfter {
		return
	}
	if unlock, err := lockFolder(dir); err == nil {
		os.RemoveAll(dir)
		unlock()
	}
}

// unkept says why what was compiled is not kept.
func (c *cache) unkept(err error) {
	c.notKept.Do(func() { c.say(sayUnkept, err) })
}

func (c *cache) say(format string, args ...any) {
	if c.logf != nil {
		c.logf(format, args...)
	}
}
