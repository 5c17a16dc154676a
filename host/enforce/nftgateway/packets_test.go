//go:build linux

package nftgateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Packets as no program sends them, of a host behind the gateway that may send anything.

// A pair is a host inside and one outside.
type pair struct{ inside, outside netip.Addr }

var eachFamily = []pair{{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.1.2")},
	{netip.MustParseAddr("2001:db8:18::2"), netip.MustParseAddr("2001:db8:18:1::2")}}

// goesNowhere wants of packets from inside that each goes out where there is no gateway,
// and none where there is one.
func goesNowhere(t *testing.T, packets [][]byte, prepare ...func(*network)) {
	both(t, func(n *network, transparent bool) {
		for _, f := range prepare {
			f(n)
		}
		t, left := n.t, n.leaving()
		for _, p := range packets {
			n.inject(p)
			require.Eventually(t, func() bool { return len(left()) > 0 }, waitTime, pollTime, "the way exists: %x", p)
		}
		here, err := netns.Get()
		require.NoError(t, err)
		defer here.Close()
		router := n.echo(here, "198.18.0.1:9", "router")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		for _, p := range packets {
			n.inject(p)
			require.Empty(t, left(), "%x", p)
		}
		n.ask(n.client("198.18.0.2:0"), router, "after")
		require.Empty(t, left(), "also of what was under way")
	})
}

// leaving returns what has left for outside from an address inside since it was last called.
func (n *network) leaving() func() []string {
	const all = 0x0300 // ETH_P_ALL, in the order of the network
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	require.NoError(n.t, err)
	n.t.Cleanup(func() { unix.Close(fd) })
	require.NoError(n.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: n.link("out").Attrs().Index}))
	return func() (found []string) {
		for b := make([]byte, 1<<16); ; {
			size, from, err := unix.Recvfrom(fd, b, 0)
			if errors.Is(err, unix.EAGAIN) {
				return found
			}
			require.NoError(n.t, err)
			source := netip.AddrFrom4([4]byte(b[12:16]))
			if b[0]>>4 == 6 {
				source = netip.AddrFrom16([16]byte(b[8:24]))
			}
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING && (source == eachFamily[0].inside || source == eachFamily[1].inside) {
				found = append(found, fmt.Sprintf("%x", b[:size]))
			}
		}
	}
}

// inject sends packets from inside as they are.
func (n *network) inject(packets ...[]byte) {
	n.at(n.inside, func() {
		for _, p := range packets {
			domain, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(p[16:20])})
			if p[0]>>4 == 6 {
				domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(p[24:40])}
			}
			fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			require.NoError(n.t, err)
			require.NoError(n.t, errors.Join(unix.Sendto(fd, p, 0, to), unix.Close(fd)), "%x", p)
		}
	})
}

// packet is one from an address to another. The kernel adds length and sum of IPv4.
func packet(from, to netip.Addr, protocol byte, payload []byte) []byte {
	p := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
	if to.Is6() {
		p = append(binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload))), protocol, 64)
	}
	return append(append(append(p, from.AsSlice()...), to.AsSlice()...), payload...)
}

// segment is one of TCP to a port that is blocked, datagram one of UDP.
func (e pair) segment(flags byte) []byte {
	b := []byte{15, 160, 0, 25, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 255, 255, 0, 0, 0, 0, 't', 'e', 'x', 't'}
	binary.BigEndian.PutUint16(b[16:], e.sum(unix.IPPROTO_TCP, b))
	return b
}

func (e pair) datagram(text string) []byte {
	b := append([]byte{15, 160, 0, 25, 0, byte(8 + len(text)), 0, 0}, text...)
	binary.BigEndian.PutUint16(b[6:], e.sum(unix.IPPROTO_UDP, b))
	return b
}

func (e pair) sum(protocol byte, b []byte) uint16 {
	all := append(append(append(e.inside.AsSlice(), e.outside.AsSlice()...), 0, protocol, 0, byte(len(b))), b...)
	s := uint32(0)
	for i := 0; i < len(all); i += 2 {
		s += uint32(binary.BigEndian.Uint16(append(all[i:len(all):len(all)], 0)))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// SCTP, UDP-Lite, DCCP, GRE, ESP, AH, IP in IP, IGMP, PIM, mobility, none, those for
// experiments and ones that nobody knows.
func TestOtherProtocolsGoNowhere(t *testing.T) {
	var all [][]byte
	for _, e := range eachFamily {
		for _, protocol := range []byte{2, 4, 33, 41, 47, 50, 51, 59, 89, 103, 132, 135, 136, 139, 140, 253, 255} {
			all = append(all, packet(e.inside, e.outside, protocol, []byte{59, 0, 0, 0, 0, 9, 0, 9, 't', 'e', 'x', 't', 0, 0, 0, 0}))
		}
	}
	goesNowhere(t, all)
}

// What begins no connection is none of one ("invalid"), or begins one in the middle.
func TestPacketsOfNoConnectionGoNowhere(t *testing.T) {
	var all [][]byte
	for _, e := range eachFamily {
		for flags := range byte(64) {
			s := e.segment(flags)
			wrong := e.segment(flags)
			wrong[16]++ // its sum
			for _, b := range [][]byte{s, wrong, s[:13], s[:4], s[:2]} {
				all = append(all, packet(e.inside, e.outside, unix.IPPROTO_TCP, b))
			}
		}
		d := e.datagram("text")
		wrong, long := e.datagram("text"), e.datagram("text")
		wrong[6]++
		long[4] = 1
		for _, b := range [][]byte{d, wrong, long, d[:7], d[:4], d[:2], nil} {
			all = append(all, packet(e.inside, e.outside, unix.IPPROTO_UDP, b))
		}
	}
	for _, loose := range []string{"0", "1"} {
		t.Run("nf_conntrack_tcp_loose="+loose, func(t *testing.T) {
			goesNowhere(t, all, func(n *network) {
				n.track()
				require.NoError(t, os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte(loose), 0o644))
			})
		})
	}
}

// Options of IPv4 and headers of IPv6 before TCP and UDP, and fragments without the ports.
func TestHeadersHideNothing(t *testing.T) {
	const hopByHop, fragment, authentication, destination, mobility, hip, shim = 0, 44, 51, 60, 135, 139, 140
	var all [][]byte
	four, six := eachFamily[0], eachFamily[1]
	for _, headers := range [][]byte{{hopByHop}, {destination}, {hopByHop, destination}, {destination, destination, destination}, {fragment}, {destination, fragment},
		{fragment, destination}, {authentication}, {mobility}, {hip}, {shim}, {hopByHop, fragment, destination}} {
		for protocol, payload := range map[byte][]byte{unix.IPPROTO_TCP: six.segment(2), unix.IPPROTO_UDP: six.datagram("text")} {
			next := protocol
			for i := len(headers) - 1; i >= 0; i-- {
				h := []byte{next, 0, 1, 4, 0, 0, 0, 0} // padding
				if headers[i] == fragment {
					h = []byte{next, 0, 0, 0, 0, 0, 0, 1} // the only one
				}
				payload, next = append(h, payload...), headers[i]
			}
			all = append(all, packet(six.inside, six.outside, next, payload))
		}
	}
	for _, option := range [][]byte{{1, 1, 1, 0}, {7, 7, 4, 0, 0, 0, 0, 0}, {68, 8, 5, 0, 0, 0, 0, 0}, {148, 4, 0, 0}, {130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {25, 4, 1, 1}} {
		for protocol, payload := range map[byte][]byte{unix.IPPROTO_TCP: four.segment(2), unix.IPPROTO_UDP: four.datagram("text")} {
			p := packet(four.inside, four.outside, protocol, append(option[:len(option):len(option)], payload...))
			p[0] += byte(len(option) / 4)
			all = append(all, p)
		}
	}
	whole := four.datagram("more than one fragment has")
	for i, part := range [][2]int{{0, 8}, {8, 34}, {0, 16}, {8, 34}} { // The last one overlaps.
		p := packet(four.inside, four.outside, unix.IPPROTO_UDP, whole[part[0]:part[1]])
		p[5], p[7] = byte(1+i/2), byte(part[0]/8)
		if part[0] == 0 {
			p[6] = 0x20 // more follow
		}
		all = append(all, p)
	}
	goesNowhere(t, all)
}

// A router of multicasts, and one that sends broadcasts on to a network (bc_forwarding).
func TestMulticastsAndBroadcastsGoNowhere(t *testing.T) {
	groups := []netip.Addr{netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff0e::1234")}
	var all [][]byte
	for i, to := range append(groups, netip.MustParseAddr("198.18.1.255")) {
		e := pair{eachFamily[i%2].inside, to}
		for range 3 {
			all = append(all, packet(e.inside, to, unix.IPPROTO_UDP, e.datagram("text")))
		}
	}
	goesNowhere(t, all, func(n *network) {
		for _, of := range []string{"all", "in", "out"} {
			require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/conf/"+of+"/bc_forwarding", []byte("1"), 0o644))
		}
		n.routeMulticasts(groups[0], groups[1])
	})
}

// routeMulticasts has the router send what comes in for the groups out.
func (n *network) routeMulticasts(four, six netip.Addr) {
	const initialize, addInterface, addRoute = 200, 202, 204 // MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC, and those of MRT6
	set := func(fd, level, option int, v []byte) {
		_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), 0)
		require.Zero(n.t, e)
	}
	open := func(family, level, protocol int) int {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		require.NoError(n.t, err)
		n.t.Cleanup(func() { unix.Close(fd) })
		set(fd, level, initialize, []byte{1, 0, 0, 0})
		return fd
	}
	fd4, fd6 := open(unix.AF_INET, unix.IPPROTO_IP, unix.IPPROTO_IGMP), open(unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPPROTO_ICMPV6)
	for i, name := range []string{"in", "out"} {
		l, err := net.InterfaceByName(name)
		require.NoError(n.t, err)
		const useIndex, threshold = 8, 1
		set(fd4, unix.IPPROTO_IP, addInterface, []byte{byte(i), 0, useIndex, threshold, 0, 0, 0, 0, byte(l.Index), 0, 0, 0, 0, 0, 0, 0}) // struct vifctl
		set(fd6, unix.IPPROTO_IPV6, addInterface, []byte{byte(i), 0, 0, threshold, byte(l.Index), 0, 0, 0, 0, 0, 0, 0})                  // struct mif6ctl
	}
	m := make([]byte, 60) // struct mfcctl: origin, group, where it comes in, thresholds
	copy(m, append(eachFamily[0].inside.AsSlice(), four.AsSlice()...))
	m[10+1] = 1
	set(fd4, unix.IPPROTO_IP, addRoute, m)
	m = make([]byte, 92) // struct mf6cctl: origin, group, where it comes in, set of interfaces
	m[0], m[28], m[60] = unix.AF_INET6, unix.AF_INET6, 1<<1
	copy(m[8:], eachFamily[1].inside.AsSlice())
	copy(m[28+8:], six.AsSlice())
	set(fd6, unix.IPPROTO_IPV6, addRoute, m)
}
