// Package filelock keeps others that lock it too out of a file: two commands that would
// change it at a time, or a second process that would open what belongs to one.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// ErrLocked says that somebody else has a file.
var ErrLocked = errors.New("another process has it open")

// Lock keeps others that lock a file out of it until unlock, from reading it to having
// written it. It waits for them, and calls wait once if it has to. What writes the file
// replaces it, so it is another one beside it that is locked, and is there meanwhile.
func Lock(ctx context.Context, path string, wait func()) (unlock func(), err error) {
	if err := wholefile.Regular(path); err != nil {
		return nil, err
	}
	l, err := lock(path, 0o666, func(l *flock.Flock) error {
		ok, err := l.TryLock()
		if err != nil || ok {
			return err
		}
		if wait != nil {
			wait()
			wait = nil
		}
		_, err = l.TryLockContext(ctx, 20*time.Millisecond)
		return err
	})
	return func() { release(l) }, err
}

// An Owned file is its process's until Release.
type Owned struct {
	path string
	lock *flock.Flock
	gone sync.Once
}

// Own is Lock for as long as a process has a file that is its user's alone: no other user
// may take the lock, and where somebody has it the error is ErrLocked at once.
func Own(path string) (*Owned, error) {
	l, err := own(path)
	return &Owned{path: path, lock: l}, err
}

func own(path string) (*flock.Flock, error) {
	return lock(path, 0o600, func(l *flock.Flock) error {
		ok, err := l.TryLock()
		if err == nil && !ok {
			err = ErrLocked
		}
		return err
	})
}

// Keep takes the lock again if somebody removed it, with its folder perhaps; ErrLocked if
// another process has the file by now.
func (o *Owned) Keep() error {
	switch still, err := current(o.lock); {
	case err != nil:
		return about(o.path, err)
	case still:
		return nil
	}
	l, err := own(o.path)
	if err == nil {
		_ = o.lock.Close()
		o.lock = l
	}
	return err
}

// Release lets others have the file. Later calls do nothing: it may be another's then.
func (o *Owned) Release() { o.gone.Do(func() { release(o.lock) }) }

func lock(path string, mode fs.FileMode, take func(*flock.Flock) error) (*flock.Flock, error) {
	// A link and what it names have one lock.
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock")
	for {
		l := flock.New(name, flock.SetPermissions(mode))
		if err := take(l); err != nil {
			_ = l.Close()
			return nil, about(path, err)
		}
		ok, err := current(l)
		if ok {
			return l, nil
		}
		_ = l.Close() // Who had it before has removed it: others would lock a new one.
		if err != nil {
			return nil, about(path, err)
		}
	}
}

// about names the file that was meant, not the one beside it.
func about(path string, err error) error {
	if errors.Is(err, ErrLocked) {
		return err
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: p.Op, Path: path, Err: p.Err}
	}
	return fmt.Errorf("%s cannot be locked: %w", path, err)
}

// current reports whether what is locked is still the file that others would lock; an error
// if that cannot be known.
func current(l *flock.Flock) (bool, error) {
	mine, err := l.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(l.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, now), err
}

// release removes what was locked, unless somebody did and it is another process's now. On
// Windows it is closed before, since what is open stays there: if others have it open,
// theirs does too.
func release(l *flock.Flock) {
	if runtime.GOOS == "windows" {
		_ = l.Close()
		_ = os.Remove(l.Path())
		return
	}
	if mine, _ := current(l); mine {
		_ = os.Remove(l.Path())
	}
	_ = l.Close()
}
