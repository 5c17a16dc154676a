//go:build amd64 || arm64

package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// connect calls connect(2) with the bytes as they are.
func connect(sock int, raw []byte) unix.Errno {
	var p unsafe.Pointer
	if len(raw) > 0 {
		p = unsafe.Pointer(&raw[0])
	}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(sock), uintptr(p), uintptr(len(raw)))
	return e
}
