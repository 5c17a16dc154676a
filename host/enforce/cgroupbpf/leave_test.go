//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

func init() {
	bypasses["connect"] = func(to netip.AddrPort) string {
		return said(connectTo(socket(unix.AF_INET, unix.SOCK_STREAM, 0), to))
	}
	bypasses["leave the cgroup"] = leaveCgroup
	bypasses["leave the cgroup as nobody"] = func(to netip.AddrPort) string {
		const nobody = 65534
		if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
			return said(err)
		}
		return leaveCgroup(to)
	}
}

const outside = "-outside" // the cgroup beside

// leaveCgroup starts a child in the cgroup beside and moves there itself; then it connects with
// a new socket, and with one that it had before.
func leaveCgroup(to netip.AddrPort) string {
	old := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return said(err)
	}
	_, path, _ := strings.Cut(string(own), "0::")
	path, _, _ = strings.Cut(path, "\n")
	beside := filepath.Join(cgroupRoot(), path) + outside
	dir, err := os.Open(beside)
	if err != nil {
		return said(err)
	}
	child := exec.Command("/proc/self/exe", "connect/"+to.String())
	child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())} // CLONE_INTO_CGROUP
	first := ""
	if out, err := child.Output(); err != nil {
		first = said(err)
	} else {
		first = strings.TrimSpace(string(out))
	}
	moved := os.WriteFile(beside+"/cgroup.procs", []byte("0"), 0)
	return strings.Join([]string{first, said(moved), bypasses["connect"](to), said(connectTo(old, to))}, " ")
}

// Who may not write to another cgroup cannot leave its own, by any way. Who may, as root,
// can, and only the sockets that it had are decided.
func TestLeavingTheCgroup(t *testing.T) {
	at, count := reached(t, unix.SOCK_STREAM)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, port(at.Port()))}}, nil)
	require.NoError(t, os.Mkdir(s.cgroup+outside, 0o755))
	t.Cleanup(func() { (&site{cgroup: s.cgroup + outside}).remove(t) })
	defer s.attach(t).Close()
	require.Equal(t, []string{"EACCES EACCES EACCES EACCES"}, s.run(t, "leave the cgroup as nobody/"+at.String()))
	require.Zero(t, count())
	require.Equal(t, []string{"ok ok ok EACCES"}, s.run(t, "leave the cgroup/"+at.String()))
	arrive(t, count, 2)
}
