//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwps"
)

// Addresses that are not where the packets go.

func init() {
	// unspecified: connect and send to no address, which is this host's.
	programs["unspecified"] = func(args []string) {
		port := must(args[0]).Port()
		for _, c := range []struct{ from, to string }{
			{"", "0.0.0.0"}, {"", "::"}, {"", "::ffff:0.0.0.0"}, {"127.0.0.2", "0.0.0.0"}, {"::ffff:127.0.0.2", "::ffff:0.0.0.0"}, {"::ffff:127.0.0.2", "::"},
		} {
			to := netip.AddrPortFrom(netip.MustParseAddr(c.to), port)
			fresh := func(kind int) int {
				fd := newSocket(int(domainOf(to.Addr())), kind)
				if c.from != "" {
					sa := sockaddrOf(netip.AddrPortFrom(netip.MustParseAddr(c.from), 0))
					_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
					check(callErr(e))
				}
				return fd
			}
			fd := fresh(unix.SOCK_STREAM)
			e := sysConnect(fd, sockaddrOf(to))
			peer, _ := unix.Getpeername(fd)
			say(c.from, c.to, "connect", name(e), peerText(peer))
			for _, how := range slices.Sorted(maps.Keys(senders)) {
				say(c.from, c.to, how, name(senders[how](fresh(unix.SOCK_DGRAM), sockaddrOf(to))))
			}
		}
	}
	// port zero: connect to no port, to which nobody can address a datagram, and send.
	programs["port zero"] = func([]string) {
		for _, to := range []string{"127.0.0.1:0", "[::1]:0"} {
			fd := newSocket(int(domainOf(must(to).Addr())), unix.SOCK_DGRAM)
			e := sysConnect(fd, sockaddrOf(must(to)))
			_, err := unix.Write(fd, []byte("to no port"))
			say(to, name(e), err == nil)
		}
	}
	// source route: send to the first address by way of the second.
	programs["source route"] = func(args []string) {
		to, via := must(args[0]), must(args[1]).Addr().As4()
		route := append([]byte{0x83, 7, 4}, append(via[:], 0)...) // LSRR
		try := func(what string, call func(fd int) error) {
			fd := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
			say(what, name(errno(call(fd))))
		}
		send := func(fd int, control []byte) error {
			_, err := unix.SendmsgN(fd, []byte("by a route"), control, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}, 0)
			return err
		}
		try("option", func(fd int) error {
			if err := unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, string(route)); err != nil {
				return err
			}
			return send(fd, nil)
		})
		try("control", func(fd int) error { return send(fd, controlOf(unix.SOL_IP, unix.IP_RETOPTS, route)) })
		try("no option", func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, "") })
	}
}

func peerText(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr).String()
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).String()
	}
	return "nobody"
}

func controlOf(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// The kernel takes 0.0.0.0 and :: for this host. The policy is asked about the address
// that is meant, and blocks what it blocks by that.
func TestBypassUnspecifiedAddress(t *testing.T) {
	l, err := net.Listen("tcp", "[::]:0")
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort()
	u, err := net.ListenPacket("udp", port.String())
	require.NoError(t, err)
	defer u.Close()
	var want []string
	out := native(t, "unspecified", port.String())
	for line := range strings.Lines(out) {
		require.Contains(t, line, " ok", "the way exists")
		if _, peer, ok := strings.Cut(line, " connect ok "); ok {
			want = append(want, strings.TrimSpace(peer))
		}
	}
	var mu sync.Mutex
	decided := map[string]bool{}
	here := func(in fwps.Incoming) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		decided[in.Remote.Addr().String()] = true
		if in.Remote.Addr().Unmap().IsLoopback() {
			return netip.AddrPort{}
		}
		return in.Remote
	}
	for line := range strings.Lines(run(t, deciding(here), "unspecified", port.String())) {
		require.Contains(t, line, " EACCES")
	}
	require.ElementsMatch(t, slices.Compact(slices.Sorted(slices.Values(want))), slices.Sorted(maps.Keys(decided)), "what is decided is where it goes")
	require.Equal(t, out, run(t, permit, "unspecified", port.String()))
}

// loopbackWire returns a function that waits for an IPv4 packet over loopback that ends so.
func loopbackWire(t *testing.T) (seen func(end string) []byte) {
	wire, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(wire) })
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	require.NoError(t, unix.Bind(wire, &unix.SockaddrLinklayer{Protocol: 8, Ifindex: lo.Index})) // ETH_P_IP, in network order.
	return func(end string) []byte {
		for b := make([]byte, 1<<16); ; {
			n, _, err := unix.Recvfrom(wire, b, 0)
			require.NoError(t, err)
			if bytes.HasSuffix(b[:n], []byte(end)) {
				return b[:n]
			}
		}
	}
}

// Who is connected to no port can send, to whoever reads all that arrives.
func TestBypassPortZero(t *testing.T) {
	asRoot(t)
	seen := loopbackWire(t)
	const sent = "127.0.0.1:0 ok true\n[::1]:0 ok true\n"
	require.Equal(t, sent, native(t, "port zero"))
	seen("to no port") // The way exists.
	require.Equal(t, strings.ReplaceAll(sent, "ok true", "EACCES false"), run(t, block, "port zero"))
	require.Equal(t, strings.ReplaceAll(sent, "ok true", "EACCES false"), runIsolated(t, Options{ALE: block}, helper("port zero")))
	require.Equal(t, sent, run(t, permit, "port zero"))
}

// A packet with a source route goes to the first address of the route, and not to
// where the program said.
func TestBypassSourceRoute(t *testing.T) {
	asRoot(t)
	seen := loopbackWire(t)
	const to, via = "203.0.113.9:9", "127.0.0.5:0"
	require.Equal(t, "option ok\ncontrol ok\nno option ok\n", native(t, "source route", to, via))
	require.Equal(t, "127.0.0.5", netip.AddrFrom4([4]byte(seen("by a route")[16:20])).String(), "the way exists")
	require.Equal(t, "option EPERM\ncontrol EPERM\nno option ok\n", run(t, permit, "source route", to, via))
}

// The routes of IPv6, some of which only some kernels have.
func TestNoRouteComesByControlMessages(t *testing.T) {
	info := controlOf(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 20))
	for kind, want := range map[int32]unix.Errno{unix.IPV6_RTHDR: unix.EPERM, unix.IPV6_2292RTHDR: unix.EPERM, unix.IPV6_TCLASS: 0} {
		m := controlOf(unix.SOL_IPV6, kind, make([]byte, 24))
		require.Equal(t, want, unrouted(m), kind)
		require.Equal(t, want, unrouted(append(slices.Clone(info), m...)), "behind another")
	}
	require.Zero(t, unrouted(nil))
	binary.NativeEndian.PutUint64(info, 1)
	require.Equal(t, unix.EINVAL, unrouted(info))
}
