package policyrun

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// hasWriter reports whether somebody has a file open to write to it: nobody gets a lease to read it
// then. Who may have none, since the file is another's, is not told.
func hasWriter(f *os.File) bool {
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var writer bool
	_ = c.Control(func(fd uintptr) { // It fails for a closed file only.
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		if writer = errors.Is(err, unix.EAGAIN); err == nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		}
	})
	return writer
}
