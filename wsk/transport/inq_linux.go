package transport

import "golang.org/x/sys/unix"

func inq(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) }
