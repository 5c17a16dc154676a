//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Sockets whose family, address or peer is not what it seems.

func init() {
	here := netip.MustParseAddrPort("127.0.0.1:9") // where everybody may send
	// no family: an address without one counts as IPv4's.
	bypasses["no family"] = func(to netip.AddrPort) string {
		sa := bytesOf(to)
		sa[0] = unix.AF_UNSPEC
		return said(errnoOrNil(sendBytes(socket(unix.AF_INET, unix.SOCK_DGRAM, 0), sa, 0)))
	}
	// other family: a socket of IPv6 takes addresses of IPv4, too.
	bypasses["other family"] = func(to netip.AddrPort) string {
		connected := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		all := []string{said(errnoOrNil(sendBytes(socket(unix.AF_INET6, unix.SOCK_DGRAM, 0), bytesOf(to), 0))), said(connectTo(connected, to))}
		_, err := unix.Write(connected, []byte("x"))
		return strings.Join(append(all, said(err)), " ")
	}
	// changed family: a socket of IPv6 becomes one of IPv4.
	bypasses["changed family"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(here.Addr().As16()), here.Port())
		all := []string{said(connectTo(fd, mapped)), said(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_ADDRFORM, unix.AF_INET))}
		return strings.Join(append(all, said(connectTo(fd, to)), said(unix.Sendto(fd, []byte("x"), 0, sockaddr(to)))), " ")
	}
	// cork: what is sent to one address is held back, and more is sent to another.
	bypasses["cork"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return said(unix.Sendto(fd, []byte("x"), unix.MSG_MORE, sockaddr(here))) + " " + said(unix.Sendto(fd, []byte("y"), 0, sockaddr(to)))
	}
	// another source: send elsewhere than to the peer, with control messages.
	bypasses["another source"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		first := said(connectTo(fd, here))
		_, err := unix.SendmsgN(fd, []byte("x"), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{127, 0, 0, 7}}), sockaddr(to), 0)
		return first + " " + said(err)
	}
	// repair: a connection that is there as soon as somebody says so.
	bypasses["repair"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return said(err)
		}
		return said(connectTo(fd, to))
	}
	// upper layer: a socket of TCP becomes one of SMC.
	bypasses["upper layer"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "smc"); err != nil {
			return said(err)
		}
		return said(connectTo(fd, to))
	}
	bypasses["smc"] = func(to netip.AddrPort) string {
		fd, err := unix.Socket(unix.AF_SMC, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return said(err)
		}
		return said(connectTo(fd, to))
	}
	// mark: a packet with a mark takes other routes.
	bypasses["mark"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 7); err != nil {
			return said(err)
		}
		return said(connectTo(fd, to))
	}
	// no port: send to whom the socket is connected at port 0, which nobody can address.
	bypasses["no port"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		err := connectTo(fd, netip.AddrPortFrom(to.Addr(), 0))
		_, sent := unix.Write(fd, []byte("x"))
		return said(err) + " " + said(sent)
	}
	// type of service: send to the peer with a control message.
	bypasses["type of service"] = func(to netip.AddrPort) string {
		domain, level, kind := unix.AF_INET, unix.SOL_IP, unix.IP_TOS
		if to.Addr().Is6() {
			domain, level, kind = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TCLASS
		}
		fd := socket(domain, unix.SOCK_DGRAM, 0)
		if err := connectTo(fd, to); err != nil {
			return said(err)
		}
		m := make([]byte, unix.CmsgSpace(4))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&m[0]))
		h.Level, h.Type = int32(level), int32(kind)
		h.SetLen(unix.CmsgLen(4))
		binary.NativeEndian.PutUint32(m[unix.CmsgLen(0):], 8)
		_, err := unix.SendmsgN(fd, []byte("x"), m, nil, 0)
		return said(err)
	}
}

func sendBytes(fd int, sa []byte, flags uintptr) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), 1, flags, uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
	return e
}

func TestBypassByOtherSockets(t *testing.T) {
	for _, w := range []way{
		{name: "no family", kind: unix.SOCK_DGRAM, native: "ok", want: "EACCES", there: 1},
		{name: "other family", kind: unix.SOCK_DGRAM, native: "ok ok ok", want: "EACCES EACCES EDESTADDRREQ", there: 2},
		{name: "changed family", kind: unix.SOCK_DGRAM, native: "ok ok ok ok", want: "ok ok EACCES EACCES", there: 1},
		{name: "another source", kind: unix.SOCK_DGRAM, native: "ok ok", want: "ok EACCES", there: 1},
		{name: "upper layer", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "smc", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "mark", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
	} {
		t.Run(w.name, func(t *testing.T) { w.try(t) })
	}
}

// Of a connection that is repaired no packet leaves until the program says so.
func TestBypassByRepair(t *testing.T) {
	at, count := reached(t, unix.SOCK_STREAM)
	require.Equal(t, "ok", native(t, "repair/"+at.String()))
	s := blocking(t, at.Port(), false)
	defer s.attach(t).Close()
	require.Equal(t, []string{"EACCES"}, s.run(t, "repair/"+at.String()))
	require.Zero(t, count())
}

// What is held back goes where the first of it goes, whatever address comes with the rest.
func TestHeldBackDatagramsGoToTheFirstAddress(t *testing.T) {
	at, count := reached(t, unix.SOCK_DGRAM)
	s := blocking(t, at.Port(), false)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ok ok"}, s.run(t, "cork/"+at.String()))
	require.Zero(t, count())
}

// A datagram with a control message, on a socket that is connected, is not decided anew:
// the kernel shows it without its address.
func TestConnectedDatagramsWithControlMessages(t *testing.T) {
	u4, got := reached(t, unix.SOCK_DGRAM)
	u6, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	defer u6.Close()
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, port(0)),
		filter(4, fwpm.LayerALEAuthConnectV6, fwp.ActionBlock, port(0))}}, nil)
	defer s.attach(t).Close()
	to6 := u6.LocalAddr().(*net.UDPAddr).AddrPort()
	require.Equal(t, []string{"ok", "ok"}, s.run(t, "type of service/"+u4.String(), "type of service/"+to6.String()))
	arrive(t, got, 1)
	require.NoError(t, u6.SetReadDeadline(time.Now().Add(time.Minute)))
	_, _, err = u6.ReadFrom(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, []string{"EACCES EDESTADDRREQ"}, s.run(t, "no port/"+u4.String()), "it was decided when it was connected")
}
