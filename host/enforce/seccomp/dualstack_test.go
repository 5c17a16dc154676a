//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

func init() {
	// dual: kind, from, to: a socket of IPv6 binds, unless from is empty, and connects or
	// sends, or listens if to is empty.
	programs["dual"] = func(args []string) {
		fd := newSocket(unix.AF_INET6, map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM}[args[0]])
		if args[1] != "" {
			say(name(sysBind(fd, sockaddrOf(must(args[1])))))
		}
		switch {
		case args[2] == "":
			say(name(errno(unix.Listen(fd, 1))))
		case args[0] == "tcp":
			say(name(sysConnect(fd, sockaddrOf(must(args[2])))))
		default:
			say(name(senders["sendto"](fd, sockaddrOf(must(args[2])))))
		}
	}
}

// ALE-LAY-16, ALE-LAY-17: a dual-stack socket is asked about at the same layers, with
// addresses of the same families, as one that is described to sim and test.
func TestDualStackIsAskedAsDescribed(t *testing.T) {
	udp, _ := udpServer(t, "udp")
	tcp := serve(t, "tcp4", "127.0.0.1:0", "tcp")
	const mapped, wild = "[::ffff:127.0.0.1]:0", "[::]:0"
	for _, c := range []struct{ kind, from, to string }{
		{"tcp", "", mapped}, {"tcp", mapped, mapped}, {"tcp", wild, mapped},
		{"udp", "", mapped}, {"udp", mapped, mapped}, {"udp", wild, mapped},
		{"udp", "", "127.0.0.1:0"}, {"udp", mapped, "127.0.0.1:0"}, // An IPv4 address will do for a datagram.
		{"tcp", mapped, ""}, {"tcp", wild, ""},
	} {
		t.Run(c.kind+" "+c.from+" to "+c.to, func(t *testing.T) {
			in := fwps.Incoming{Protocol: fwps.ProtocolTCP}
			port := tcp.Port()
			if c.kind == "udp" {
				in.Protocol, port = fwps.ProtocolUDP, udp.Port()
			}
			if c.to != "" {
				in.Remote = netip.AddrPortFrom(must(c.to).Addr(), port)
			}
			live := &layers{}
			to := ""
			if c.to != "" {
				to = in.Remote.String()
			}
			require.NotContains(t, run(t, live.enforcer(), "dual", c.kind, c.from, to), "E")
			in.Remote = netip.AddrPortFrom(netip.AddrFrom16(in.Remote.Addr().As16()), port)
			require.Equal(t, described(t, in, c.from, c.to != ""), live.asked())
		})
	}
}

// described asks as sim and test do.
func described(t *testing.T, in fwps.Incoming, from string, connects bool) []string {
	l := &layers{}
	e := l.enforcer()
	if from != "" {
		in.Local = must(from)
	}
	if connects {
		s, f, err := policytest.Connect(t.Context(), e, in)
		require.NoError(t, err)
		f.Close()
		s.Close()
		return l.asked()
	}
	s := e.NewSocket(in)
	_, err := s.Bind(t.Context(), in.Local, func(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) {
		return netip.AddrPortFrom(want.Addr(), 60001), nil
	})
	require.NoError(t, err)
	require.NoError(t, s.Listen(t.Context(), func() error { return nil }))
	s.Close()
	return l.asked()
}

// asked are the layers with the families of their addresses, up to the end of what there was.
func (l *layers) asked() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.seen {
		ends := []fwpm.LayerID{fwpm.LayerALEEndpointClosureV4, fwpm.LayerALEResourceReleaseV4}
		if slices.Contains(ends, in.Layer.ForFamily(false)) {
			break // Here they may come later.
		}
		remote := in.Remote
		if !in.Layer.Offers(fwpm.ConditionIPRemotePort) { // A description knows it before the layer does.
			remote = netip.AddrPort{}
		}
		out = append(out, strings.Join([]string{in.Layer.String(), kindOf(in.Local), kindOf(remote)}, " "))
	}
	return out
}

func kindOf(a netip.AddrPort) string {
	switch a := a.Addr(); {
	case !a.IsValid():
		return "-"
	case a.Is4():
		return "4"
	case a.Is4In6():
		return "mapped"
	}
	return "6"
}
