//go:build amd64 || arm64

package seccomp

import (
	"fmt"
	"unsafe"

	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/sys/unix"
)

// denyTCP makes Landlock deny TCP connect and bind to the calling thread and its
// children. What the supervisor does with their sockets is not their doing.
func denyTCP() error {
	abi, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 || abi < 4 {
		return &enforce.UnsupportedError{Name: enforce.LandlockTCP, MinimumKernel: "6.7", Why: fmt.Sprintf("ABI %d: %v", int(abi), e)}
	}
	attr := struct{ fs, net uint64 }{net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP | unix.LANDLOCK_ACCESS_NET_BIND_TCP} // Handled, and no rule allows it.
	fd, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if e != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	defer unix.Close(int(fd))
	if _, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", e)
	}
	return nil
}
