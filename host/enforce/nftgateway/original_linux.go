package nftgateway

import (
	"encoding/binary"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// originalDestination asks the connection tracking where a connection was going
// before it was translated.
func originalDestination(fd int, v4 bool) (netip.AddrPort, error) {
	const original = 80 // SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST
	level := uintptr(unix.SOL_IP)
	if !v4 {
		level = unix.SOL_IPV6
	}
	var b [28]byte // struct sockaddr_in6
	n := uint32(len(b))
	if v4 {
		n = 16
	}
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), level, original, uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt SO_ORIGINAL_DST", e)
	}
	port := binary.BigEndian.Uint16(b[2:])
	if v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port), nil
}
