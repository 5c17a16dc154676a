//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Addresses that are not where the packets go.

func init() {
	bypasses["unspecified"] = noAddress
	bypasses["route"] = sourceRoute
	bypasses["route of a connection"] = connectionRoute
}

// noAddress connects and sends to no address, which is this host's.
func noAddress(to netip.AddrPort) string {
	var heard []string
	for _, c := range []struct{ from, to string }{
		{"", "0.0.0.0"}, {"", "::"}, {"", "::ffff:0.0.0.0"}, {"127.0.0.2", "0.0.0.0"}, {"::ffff:127.0.0.2", "::ffff:0.0.0.0"}, {"::ffff:127.0.0.2", "::"},
	} {
		at := netip.AddrPortFrom(netip.MustParseAddr(c.to), to.Port())
		fresh := func(kind int) int {
			domain := unix.AF_INET6
			if at.Addr().Is4() {
				domain = unix.AF_INET
			}
			fd := socket(domain, kind, 0)
			if c.from != "" {
				if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(netip.MustParseAddr(c.from), 0))); err != nil {
					panic(err)
				}
			}
			return fd
		}
		heard = append(heard, said(connectTo(fresh(unix.SOCK_STREAM), at)), said(connectTo(fresh(unix.SOCK_DGRAM), at)),
			said(unix.Sendto(fresh(unix.SOCK_DGRAM), []byte("x"), 0, sockaddr(at))))
	}
	return strings.Join(heard, " ")
}

// sourceRoute sends to an address by way of another one.
func sourceRoute(via netip.AddrPort) string {
	a := via.Addr().As4()
	route := append([]byte{1, 0x83, 7, 4}, a[:]...) // NOP, LSRR
	control := make([]byte, unix.CmsgSpace(len(route)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.SOL_IP, unix.IP_RETOPTS
	h.SetLen(unix.CmsgLen(len(route)))
	copy(control[unix.CmsgLen(0):], route)
	to := &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 9}, Port: 9}
	option := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	err := unix.SetsockoptString(option, unix.SOL_IP, unix.IP_OPTIONS, string(route))
	if err == nil {
		err = unix.Sendto(option, []byte("x"), 0, to)
	}
	_, later := unix.SendmsgN(socket(unix.AF_INET, unix.SOCK_DGRAM, 0), []byte("x"), control, to, 0)
	stamp := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	other := unix.SetsockoptString(stamp, unix.SOL_IP, unix.IP_OPTIONS, "\x44\x04\x05\x00") // a time stamp, with no room
	if other == nil {
		other = unix.Sendto(stamp, []byte("x"), 0, sockaddr(via))
	}
	return said(err) + " " + said(later) + " " + said(other) + " " + said(sourceRoute6())
}

// connectionRoute connects to an address by way of another one, and gives another
// connection a route that exists.
func connectionRoute(via netip.AddrPort) string {
	a := via.Addr().As4()
	route := string(append([]byte{1, 0x83, 7, 4}, a[:]...))
	fresh := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	err := unix.SetsockoptString(fresh, unix.SOL_IP, unix.IP_OPTIONS, route)
	if err == nil {
		err = unix.Connect(fresh, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 9}, Port: 9})
	}
	old := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	was := unix.Connect(old, sockaddr(via))
	if was == nil {
		was = unix.SetsockoptString(old, unix.SOL_IP, unix.IP_OPTIONS, route)
	}
	if was == nil {
		_, was = unix.Write(old, []byte("x"))
	}
	return said(err) + " " + said(was)
}

// sourceRoute6 does so by way of ::1.
func sourceRoute6() error {
	to := netip.MustParseAddrPort("[2001:db8::9]:9")
	final, via := to.Addr().As16(), netip.IPv6Loopback().As16()
	route := append(append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, final[:]...), via[:]...) // A segment routing header.
	fd := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err := unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_RTHDR, string(route)); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("x"), 0, sockaddr(to))
}

// The kernel takes 0.0.0.0 and :: for this host, and the policy blocks that by its
// address.
func TestBypassUnspecifiedAddress(t *testing.T) {
	l, err := net.Listen("tcp", "[::]:0")
	require.NoError(t, err)
	defer l.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Addr().(*net.TCPAddr).AddrPort().Port())
	all := func(word string) string { return strings.TrimSpace(strings.Repeat(word+" ", 18)) }
	require.Equal(t, all("ok"), native(t, "unspecified/"+at.String()), "the way exists")
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{
		filter(3, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemoteAddress, fwp.Mask(netip.MustParsePrefix("127.0.0.0/8")))),
		filter(4, fwpm.LayerALEAuthConnectV6, fwp.ActionBlock, condition(fwpm.ConditionIPRemoteAddress, fwp.Mask(netip.MustParsePrefix("::1/128")))),
	}}, nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{all("EACCES")}, s.run(t, "unspecified/"+at.String()))
}

// A packet with a source route goes to the first address of the route, and not to
// where its socket sends. Other options are nobody's business.
func TestBypassSourceRoute(t *testing.T) {
	at, count := reached(t, unix.SOCK_DGRAM)
	require.Equal(t, "ok ok ok ok", native(t, "route/"+at.String()), "the way exists")
	arrive(t, count, 1)
	s := newSite(t, new(fwpm.Policy), nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{"EPERM EPERM ok EPERM"}, s.run(t, "route/"+at.String()))
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 3 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], "to "+at.Addr().String())
	require.Contains(t, denials[2], "to [::1]")
	for _, d := range denials {
		require.Contains(t, d, "it has a source route")
	}
}

// Nobody but its process knows when a connection has no way: that is told, once for each.
func TestBypassSourceRouteOfAConnection(t *testing.T) {
	at, count := reached(t, unix.SOCK_STREAM)
	require.Equal(t, "EINPROGRESS ok", native(t, "route of a connection/"+at.String()))
	arrive(t, count, 1)
	s := newSite(t, new(fwpm.Policy), nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{"EINPROGRESS ok"}, s.run(t, "route of a connection/"+at.String()))
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 2 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	slices.Sort(denials)
	require.Regexp(t, `^("?/.*|\[user \d+, ended\]\[\d+\]) to 127\.0\.0\.1:9 blocked at .*: it has a source route`, denials[0])
	require.Regexp(t, `^unknown program to `+at.String()+` blocked at .*: it has a source route`, denials[1])
}
