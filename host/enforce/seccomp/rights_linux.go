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
	canBindAll       bool   // ports below unprivilegedPort too
	unprivilegedPort uint16 // net.ipv4.ip_unprivileged_port_start
	userNamespace    string
	user             uint32
}

func ownRights() (rights, error) {
	r := rights{unprivilegedPort: 1024, user: uint32(os.Geteuid())}
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
	r.canBindAll = st.number("CapEff:", 16)>>netBindService&1 != 0
	r.userNamespace = userNamespace(self)
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			r.unprivilegedPort = uint16(n)
		}
	}
	return r, nil
}

const netBindService = 10 // CAP_NET_BIND_SERVICE

// userNamespace names the one of a process, given its directory in /proc.
func userNamespace(dir int) string {
	b := make([]byte, 64)
	n, err := unix.Readlinkat(dir, "ns/user", b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// mayBind refuses a port that the program may not have: it would be bound with
// the supervisor's capabilities.
func (w *worker) mayBind(port uint16) unix.Errno {
	if port == 0 || port >= w.s.unprivilegedPort || !w.s.canBindAll {
		return 0
	}
	st, err := readStatus(w.t.dir)
	if err != nil {
		return w.fail("read its capabilities", err)
	}
	if st.number("CapEff:", 16)>>netBindService&1 == 0 || userNamespace(w.t.dir) != w.s.userNamespace {
		return unix.EACCES
	}
	return 0
}
