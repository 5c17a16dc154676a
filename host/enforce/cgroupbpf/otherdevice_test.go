//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packets for this host that would leave it, since somebody named another device for them.

func init() {
	bypasses["away"] = leadAway
	// served away: where somebody serves.
	bypasses["served away"] = func(to netip.AddrPort) string {
		for network, at := range map[string]string{"tcp4": "127.0.0.1:7", "tcp6": "[::1]:7"} {
			if s := up(); s != "up" {
				return s
			}
			if _, err := net.Listen(network, at); err != nil {
				return said(err)
			}
		}
		return leadAway(to)
	}
}

// aways lead packets for an address of loopback to a device. first and later are done to
// a socket before and after it is connected; an empty control message means that it is.
var aways = []struct {
	name         string
	domain, kind int
	first, later func(fd, device int) error
	control      func(device int) []byte
}{
	{"TCP, bound to it later", unix.AF_INET, unix.SOCK_STREAM, fromOutside, toDevice, nil},
	{"TCP of IPv6, bound to it later", unix.AF_INET6, unix.SOCK_STREAM, nil, toDevice, nil},
	{"UDP, bound to it later", unix.AF_INET, unix.SOCK_DGRAM, fromOutside, toDevice, nil},
	{"UDP, sent by it", unix.AF_INET, unix.SOCK_DGRAM, byDevice, nil, nil},
	{"UDP, with a control message", unix.AF_INET, unix.SOCK_DGRAM, nil, nil, func(device int) []byte {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(device)})
	}},
	{"UDP of IPv6, with a control message", unix.AF_INET6, unix.SOCK_DGRAM, nil, nil, func(device int) []byte {
		return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(device)})
	}},
}

func fromOutside(fd, _ int) error {
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}})
}
func toDevice(fd, _ int) error { return unix.BindToDevice(fd, "v0") }

func byDevice(fd, device int) error {
	index := int(int32(binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, uint32(device)))))
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_UNICAST_IF, index), ofIPv6(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_UNICAST_IF, index)))
}

// ofIPv6 leaves out what only sockets of IPv6 have.
func ofIPv6(err error) error {
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}

// leadAway tries all of them in a network of two devices, and says what a neighbour hears.
func leadAway(to netip.AddrPort) string {
	wire, device, err := neighbour()
	if err != nil {
		return err.Error()
	}
	var heard []string
	for i, a := range aways {
		at := to
		if a.domain == unix.AF_INET6 && to.Addr().IsLoopback() {
			at = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
		} else if a.domain == unix.AF_INET6 {
			at = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:2::7"), to.Port())
		}
		word := fmt.Sprintf("secret %d.", i)
		fd := socket(a.domain, a.kind, 0)
		err := func() error {
			if a.first != nil {
				if err := a.first(fd, device); err != nil {
					return err
				}
			}
			if a.control != nil {
				_, err := unix.SendmsgN(fd, []byte(word), a.control(device), sockaddr(at), 0)
				return err
			}
			if a.kind == unix.SOCK_STREAM {
				patient(uintptr(fd))
			}
			if err := connectTo(fd, at); err != nil {
				return err
			}
			if a.later != nil {
				if err := a.later(fd, device); err != nil {
					return err
				}
			}
			_, err := unix.Write(fd, []byte(word))
			return err
		}()
		if err != nil {
			heard = append(heard, said(err))
		} else {
			heard = append(heard, wire(word))
		}
	}
	return strings.Join(heard, " ")
}

// neighbour makes a device with a neighbour, to which everything is routed that has no
// other route, and returns what says whether that hears a word: it listens where the device
// is given what it sends, which is before a write returns, however busy the machine is.
func neighbour() (hears func(string) string, device int, err error) {
	if said := up(); said != "up" {
		return nil, 0, errors.New(said)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}); err != nil {
		return nil, 0, err
	}
	v0, err0 := netlink.LinkByName("v0")
	v1, err1 := netlink.LinkByName("v1")
	if err := errors.Join(err0, err1); err != nil {
		return nil, 0, err
	}
	device = v0.Attrs().Index
	err = errors.Join(netlink.LinkSetUp(v0), netlink.LinkSetUp(v1))
	for own, other := range map[string]string{"192.0.2.1/24": "192.0.2.2", "2001:db8:5::1/64": "2001:db8:5::2"} {
		a, _ := netlink.ParseAddr(own)
		a.Flags = unix.IFA_F_NODAD
		gateway, all := net.ParseIP(other), &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		if gateway.To4() != nil {
			all = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		}
		err = errors.Join(err, netlink.AddrAdd(v0, a),
			netlink.NeighAdd(&netlink.Neigh{LinkIndex: device, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: device, Dst: all, Gw: gateway}))
	}
	everything := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	wire, e := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(everything))
	if err = errors.Join(err, e); err != nil {
		return nil, 0, err
	}
	err = errors.Join(unix.Bind(wire, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: device}),
		unix.SetsockoptTimeval(wire, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000}))
	return func(word string) string {
		for b := make([]byte, 2048); ; {
			n, _, err := unix.Recvfrom(wire, b, 0)
			if err != nil {
				return "nothing"
			}
			if bytes.Contains(b[:n], []byte(word)) {
				return "heard"
			}
		}
	}, device, err
}

// What goes to this host, as what is redirected does, does not leave it by another device.
func TestBypassByADevice(t *testing.T) {
	all := func(word string) string { return strings.TrimSpace(strings.Repeat(word+" ", len(aways))) }
	alone := exec.CommandContext(t.Context(), os.Args[0], "served away/127.0.0.1:7")
	alone.Env = append(os.Environ(), "CALLOUTD_HELPER=1", "GORACE=atexit_sleep_ms=0")
	alone.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := alone.Output()
	require.NoError(t, err)
	require.Equal(t, all("heard"), strings.TrimSpace(string(out)), "the way exists")

	s := namespaceSite(t)
	defer s.attach(t).Close()
	for _, arg := range []string{"away/198.51.100.7:80", "served away/127.0.0.1:7"} { // redirected, permitted
		got := s.start(t, unix.CLONE_NEWNET, arg).end()[0]
		require.Equal(t, "nothing nothing EPERM EPERM EPERM ENETUNREACH", got) // The route to what stands in is another table's.
	}
	told := func() []string { d, _ := s.told(); return d }
	require.Eventually(t, func() bool { return len(told()) == 10 }, time.Minute, time.Millisecond)
	for _, d := range told() {
		require.Contains(t, d, "it is for this host, and would leave it by the device")
	}
}
