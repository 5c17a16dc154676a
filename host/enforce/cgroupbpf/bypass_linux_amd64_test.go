package cgroupbpf

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { bypasses["x32"] = x32 }

// x32 connects by the number that the call has for programs of x32.
func x32(to netip.AddrPort) string {
	sa := bytesOf(to)
	_, _, e := unix.RawSyscall(0x40000000|unix.SYS_CONNECT, uintptr(socket(unix.AF_INET, unix.SOCK_STREAM, 0)), uintptr(unsafe.Pointer(&sa[0])), 16)
	return said(errnoOrNil(e))
}
