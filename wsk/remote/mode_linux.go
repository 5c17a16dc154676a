package remote

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// setMode sets the mode that the file of a socket is made with, less the umask.
func setMode(c syscall.RawConn, mode fs.FileMode) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(mode.Perm())) }); e != nil {
		return e
	}
	return err
}
