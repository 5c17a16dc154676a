//go:build unix

package flight

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock waits until no other process, and nobody else here, has the file locked.
func lock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

func unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }
