//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

const lentTo = 65534 // nobody

func init() {
	send := func(fd int, to netip.AddrPort, word string) error {
		return unix.Sendto(fd, []byte(word), 0, sockaddr(to))
	}
	// lend: send by one socket as this process, as a thread of it that has become another
	// user, and as another process.
	bypasses["lend"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		first := send(fd, to, "itself")
		_, _, _ = unix.Recvfrom(fd, make([]byte, 16), 0)
		second := make(chan error)
		go func() {
			runtime.LockOSThread() // It ends as what it becomes.
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, lentTo, lentTo, ^uintptr(0)); e != 0 {
				second <- e
				return
			}
			second <- send(fd, to, "another user")
		}()
		other := exec.Command(os.Args[0], "borrow/"+to.String())
		other.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "socket")}
		return fmt.Sprint(said(first), " ", said(<-second), " ", said(other.Run()))
	}
	bypasses["borrow"] = func(to netip.AddrPort) string { return said(send(3, to, "another process")) }
}

// A callout is asked for who sends a datagram, and not for who sent one to that address by
// the same socket before.
func TestBypassByALentSocket(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer c.Close()
	var first uint32
	var once sync.Once
	ask := filter(1, authConnect, fwp.ActionCalloutUnknown)
	ask.Callout = "c"
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{ask}}, fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		once.Do(func() { first = c.In.ProcessID })
		if v.Action = fwp.ActionPermit; c.In.UserID == lentTo || c.In.ProcessID != first {
			v.Action = fwp.ActionBlock
		}
		return nil
	}))
	defer s.attach(t).Close()
	got := make(chan string, 8)
	go func() {
		defer close(got)
		for b := make([]byte, 64); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			got <- string(b[:n])
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	require.Equal(t, []string{"ok ok ok"}, s.run(t, "lend/"+c.LocalAddr().String()))
	require.Equal(t, "itself", <-got)
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 2 }, time.Minute, time.Millisecond)
	require.Empty(t, got)
}
