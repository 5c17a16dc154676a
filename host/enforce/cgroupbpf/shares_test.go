//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
)

const (
	places = 20
	greedy = 3 * places // connections, or flows
)

func init() {
	// holds: connects as often as it can, says how many were carried, and keeps them.
	bypasses["holds"] = func(to netip.AddrPort) string {
		carried := 0
		for range greedy {
			if fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0); hears(fd, to) == "ok" {
				carried++
			}
		}
		return fmt.Sprint(carried)
	}
	// holds-flows: the same with datagrams, for which nothing is said.
	bypasses["holds-flows"] = func(to netip.AddrPort) string {
		for range greedy {
			_ = unix.Sendto(socket(unix.AF_INET, unix.SOCK_DGRAM, 0), []byte("x"), 0, sockaddr(to))
		}
		return "sent"
	}
	// as-nobody: connects once, and sends, as another user.
	bypasses["as-nobody"] = func(to netip.AddrPort) string {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobodyID, nobodyID, nobodyID); e != 0 {
			return said(e)
		}
		datagram := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err := unix.Sendto(datagram, []byte("x"), 0, sockaddr(to)); err != nil {
			return said(err)
		}
		return hears(socket(unix.AF_INET, unix.SOCK_STREAM, 0), to) + " " + hears(datagram, to)
	}
}

// hears connects a socket and reads something from it.
func hears(fd int, to netip.AddrPort) string {
	tv := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return said(err)
	}
	if kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); kind == unix.SOCK_STREAM {
		if err := connectTo(fd, to); err != nil {
			return said(err)
		}
	}
	n, err := unix.Read(fd, make([]byte, 16))
	if n == 0 && err == nil {
		return "nothing"
	}
	return said(err)
}

// A user who takes all that he can, of connections and of flows, leaves as many to others.
func TestAUserLeavesPlacesForOthers(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	greet(t, "udp4", origin.String(), "origin", nil)
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, toProxies(netip.AddrPort{}, netip.AddrPort{}))
	s.opts.MaxConnections, s.opts.MaxDatagramFlows = places, places
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, 0, "holds-flows/"+origin.String(), "holds/"+origin.String(), "stdin/")
	require.Equal(t, "sent", h.line())
	require.Equal(t, fmt.Sprint(places/2), h.line())
	denials, _ := s.told()
	require.Contains(t, denials[0], "as many connections are carried as may be (20), or as many of user 0 as are left for others")
	require.Equal(t, []string{"ok ok"}, s.run(t, "as-nobody/"+origin.String()))
	require.EqualValues(t, places/2+1, a.Datagrams().Flows)
	require.NotZero(t, a.Datagrams().Lost[enforce.LostForFlows])

	h.end()
	require.Eventually(t, func() bool { return a.places.Taken() == 0 }, time.Minute, time.Millisecond)
	require.Equal(t, []string{"origin from " + origin.String()}, s.run(t, "tcp/"+origin.String()))
}

// More than descriptors are enough for is a mistake.
func TestMoreConnectionsThanDescriptors(t *testing.T) {
	s := newSite(t, &fwpm.Policy{}, nil)
	s.opts.MaxConnections = 1 << 40
	_, err := Attach(t.Context(), s.opts)
	require.ErrorContains(t, err, "RLIMIT_NOFILE")
}
