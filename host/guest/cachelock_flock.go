//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package guest

import (
	"os"
	"syscall"
	"time"
)

// abandonedAfter is how old a folder is that nobody has locked: one whose owner is about to
// lock it is younger.
const abandonedAfter = time.Minute

// lockFolder locks a folder until unlock, or the end of the process, and fails where somebody has.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|openFlags|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	return func() { f.Close() }, nil
}
