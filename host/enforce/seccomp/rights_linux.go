//go:build amd64 || arm64

package seccomp

import (
	"os"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/sys/unix"
)

// rights are what the supervisor may do that its program perhaps may not.
type rights struct {
	capabilities     uint64 // effective
	unprivilegedPort uint16 // net.ipv4.ip_unprivileged_port_start
	userNamespace    string
	user, group      uint32
}

func ownRights() (rights, error) {
	r := rights{unprivilegedPort: 1024, user: uint32(os.Geteuid()), group: uint32(os.Getegid())}
	if err := enforce.CheckProc(); err != nil {
		return r, &enforce.UnsupportedError{Name: enforce.Descendants, Why: err.Error()}
	}
	self, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return r, os.NewSyscallError("open /proc/self", err)
	}
	defer unix.Close(self)
	st, err := readStatus(self)
	if err != nil {
		return r, err
	}
	r.capabilities = st.number("CapEff:", 16)
	r.userNamespace = userNamespace(self)
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			r.unprivilegedPort = uint16(n)
		}
	}
	return r, nil
}

// userNamespace names the one of a process, given its directory in /proc.
func userNamespace(dir int) string {
	b := make([]byte, 64)
	n, err := unix.Readlinkat(dir, "ns/user", b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// Capabilities that the kernel asks of who makes a call, which here is the supervisor.
const (
	toBind    = 1 << unix.CAP_NET_BIND_SERVICE                         // a port below unprivilegedPort
	toControl = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN            // what control messages ask for
	toFind    = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH // a path that others may not
)

// mayBind refuses a port that the program may not have.
func (w *worker) mayBind(port uint16) unix.Errno {
	if port == 0 || port >= w.s.unprivilegedPort {
		return 0
	}
	return w.borrows(toBind, unix.EACCES)
}

// mayControl refuses control messages that take a right, such as to mark a packet.
func (w *worker) mayControl(control []byte) unix.Errno {
	if w.s.capabilities&toControl == 0 || harmless(control) {
		return 0
	}
	return w.borrows(toControl, unix.EPERM)
}

// borrows gives why to a program that does not have, in the supervisor's user namespace,
// what the supervisor has of these capabilities.
func (w *worker) borrows(capabilities uint64, why unix.Errno) unix.Errno {
	needs := w.s.capabilities & capabilities
	if needs == 0 {
		return 0
	}
	if w.lacks(needs) || userNamespace(w.t.dir) != w.s.userNamespace {
		return why
	}
	return 0
}

// lacks reports whether the program does not have all of these capabilities, or whether
// nobody can say.
func (w *worker) lacks(capabilities uint64) bool {
	st, err := readStatus(w.t.dir)
	if err != nil {
		w.fail("read its capabilities", err)
	}
	return err != nil || st.number("CapEff:", 16)&capabilities != capabilities
}

// harmless reports whether everybody may send such control messages. Of others, and of
// those of kernels to come, the kernel may ask a right.
func harmless(control []byte) bool {
	messages, _ := unix.ParseSocketControlMessage(control) // See unrouted.
	for _, m := range messages {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.SOL_IP, unix.IP_PKTINFO}, [2]int32{unix.SOL_IP, unix.IP_TTL}, [2]int32{unix.SOL_IP, unix.IP_TOS},
			[2]int32{unix.SOL_IPV6, unix.IPV6_PKTINFO}, [2]int32{unix.SOL_IPV6, unix.IPV6_HOPLIMIT}, [2]int32{unix.SOL_IPV6, unix.IPV6_TCLASS},
			[2]int32{unix.SOL_IPV6, unix.IPV6_DONTFRAG}, [2]int32{unix.SOL_IPV6, flowInfo},
			[2]int32{unix.SOL_UDP, unix.UDP_SEGMENT},
			[2]int32{unix.SOL_SOCKET, unix.SO_TIMESTAMPING}, [2]int32{unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW}, [2]int32{unix.SOL_SOCKET, unix.SO_TXTIME}:
		default:
			return false
		}
	}
	return true
}

const flowInfo = 11 // IPV6_FLOWINFO
