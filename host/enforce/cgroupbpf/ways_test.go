//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/bypass"
)

// Each of these is a way round the decision that a program tries in earnest. Where
// nothing is attached it reaches its aim: the way exists.

// A bypass returns what the calls came to.
var bypasses = map[string]func(to netip.AddrPort) string{
	"uring":         func(to netip.AddrPort) string { return uring(bypass.Connect, unix.SOCK_STREAM, to) },
	"uring-sendmsg": func(to netip.AddrPort) string { return uring(bypass.Sendmsg, unix.SOCK_DGRAM, to) },
	"fastopen":      fastOpen,
	"deferred":      deferred,
	"mptcp":         mptcp,
	"sendmmsg":      sendmmsg,
	"udplite":       udplite,
	"v6only":        v6only,
	"reuse":         reuse,
	"unconnected":   unconnected,
	"raw":           rawTCP,
	"raw6":          func(netip.AddrPort) string { return opens(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW) },
	"ping":          ping,
	"passed":        passed,
	"passes":        passes,
	"device":        device,
	"veth":          veth,
	"stale":         stale,
}

func said(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno) && unix.ErrnoName(errno) != "":
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// bytesOf is a sockaddr_in.
func bytesOf(to netip.AddrPort) []byte {
	a := to.Addr().As4()
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	return append(append(binary.BigEndian.AppendUint16(b, to.Port()), a[:]...), make([]byte, 8)...)
}

func socket(domain, kind, protocol int) int {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		panic(err)
	}
	return fd
}

func connectTo(fd int, to netip.AddrPort) error { return unix.Connect(fd, sockaddr(to)) }

// opens makes a socket.
func opens(domain, kind, protocol int) string {
	_, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	return said(err)
}

// ping makes a socket as programs without privileges do that ping, where they may.
func ping(netip.AddrPort) string {
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0o644); err != nil {
		return err.Error()
	}
	return opens(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
}

// uring connects or sends through a ring of its own.
func uring(op byte, kind int, to netip.AddrPort) string {
	return said(bypass.Ring(op, socket(unix.AF_INET, kind, 0), bytesOf(to)))
}

// fastOpen connects without connect().
func fastOpen(to netip.AddrPort) string {
	sa := bytesOf(to)
	msg := unix.Mmsghdr{Hdr: unix.Msghdr{Name: &sa[0], Namelen: uint32(len(sa)), Iov: &unix.Iovec{Base: &sa[0], Len: 1}, Iovlen: 1}}
	var all []string
	for _, send := range []func(fd uintptr) unix.Errno{
		func(fd uintptr) unix.Errno {
			_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&sa[0])), 1, unix.MSG_FASTOPEN, uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
			return e
		},
		func(fd uintptr) unix.Errno {
			_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg.Hdr)), unix.MSG_FASTOPEN)
			return e
		},
		func(fd uintptr) unix.Errno {
			_, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msg)), 1, unix.MSG_FASTOPEN, 0, 0)
			return e
		},
	} {
		e := error(nil)
		if errno := send(uintptr(socket(unix.AF_INET, unix.SOCK_STREAM, 0))); errno != 0 {
			e = errno
		}
		all = append(all, said(e))
	}
	return strings.Join(all, " ")
}

// deferred lets connect() only note the address (TCP_FASTOPEN_CONNECT), and sends.
func deferred(to netip.AddrPort) string {
	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
		return said(err)
	}
	if err := connectTo(fd, to); err != nil {
		return said(err)
	}
	_, err := unix.Write(fd, []byte("x"))
	return said(err)
}

func mptcp(to netip.AddrPort) string {
	return said(connectTo(socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), to))
}

// sendmmsg sends two datagrams in one call, the second of which goes where it may not.
func sendmmsg(to netip.AddrPort) string {
	sa, self, word := bytesOf(to), bytesOf(netip.MustParseAddrPort("127.0.0.1:9")), []byte("x")
	iov := &unix.Iovec{Base: &word[0], Len: 1}
	msgs := []unix.Mmsghdr{{Hdr: unix.Msghdr{Name: &self[0], Namelen: 16, Iov: iov, Iovlen: 1}}, {Hdr: unix.Msghdr{Name: &sa[0], Namelen: 16, Iov: iov, Iovlen: 1}}}
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(socket(unix.AF_INET, unix.SOCK_DGRAM, 0)), uintptr(unsafe.Pointer(&msgs[0])), 2, 0, 0, 0)
	return fmt.Sprint(n, " ", said(errnoOrNil(e)))
}

func errnoOrNil(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// udplite sends by the protocol that UDP's code serves, too.
func udplite(to netip.AddrPort) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDPLITE)
	if err != nil {
		return said(err)
	}
	err = connectTo(fd, to)
	_, sent := unix.Write(fd, []byte("x"))
	return said(err) + " " + said(sent)
}

// v6only connects a socket of IPv6 alone to a v4-mapped address.
func v6only(to netip.AddrPort) string {
	fd := socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		return said(err)
	}
	return said(connectTo(fd, netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())))
}

// reuse connects one socket again and again: where it may go, away, and where it may not.
func reuse(to netip.AddrPort) string {
	fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	all := []string{said(connectTo(fd, netip.MustParseAddrPort("127.0.0.1:9"))), said(connectTo(fd, to))}
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&make([]byte, 16)[0])), 16) // AF_UNSPEC
	return strings.Join(append(all, said(errnoOrNil(e)), said(connectTo(fd, to)), said(unix.Sendto(fd, []byte("x"), 0, sockaddr(to)))), " ")
}

// unconnected sends elsewhere from a socket that is connected.
func unconnected(to netip.AddrPort) string {
	fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	return said(connectTo(fd, netip.MustParseAddrPort("127.0.0.1:9"))) + " " + said(unix.Sendto(fd, []byte("x"), 0, sockaddr(to)))
}

// rawTCP sends a SYN that it has written itself.
func rawTCP(to netip.AddrPort) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return said(err)
	}
	syn := binary.BigEndian.AppendUint16([]byte{0x9c, 0x40}, to.Port())
	syn = append(syn, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0)
	return said(unix.Sendto(fd, syn, 0, sockaddr(to)))
}

// passed connects with a socket that comes over descriptor 3.
func passed(to netip.AddrPort) string {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
	if err != nil {
		return said(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return said(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return said(err)
	}
	return said(connectTo(fds[0], to))
}

// passes makes a socket and gives it away over descriptor 3.
func passes(netip.AddrPort) string {
	return said(unix.Sendmsg(3, []byte{0}, unix.UnixRights(socket(unix.AF_INET, unix.SOCK_STREAM, 0)), nil, 0))
}

// device connects from a socket that is bound to a device that does not lead there.
func device(to netip.AddrPort) string {
	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		return said(err)
	}
	return said(connectTo(fd, to))
}

// veth connects and sends from sockets that are bound to another device than loopback.
func veth(to netip.AddrPort) string {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}); err != nil {
		return err.Error()
	}
	tcp, udp := socket(unix.AF_INET, unix.SOCK_STREAM, 0), socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err := errors.Join(unix.BindToDevice(tcp, "v0"), unix.BindToDevice(udp, "v0")); err != nil {
		return err.Error()
	}
	return said(connectTo(tcp, to)) + " " + said(unix.Sendto(udp, []byte("x"), 0, sockaddr(to)))
}

// stale connects a socket that was redirected before, and says to whom it is.
func stale(to netip.AddrPort) string {
	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	first := said(connectTo(fd, netip.MustParseAddrPort("198.51.100.7:80")))
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&make([]byte, 16)[0])), 16) // AF_UNSPEC
	again := said(connectTo(fd, to))
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return said(err)
	}
	return fmt.Sprint(first, " ", said(errnoOrNil(e)), " ", again, " ", netip.AddrPortFrom(netip.AddrFrom4(peer.(*unix.SockaddrInet4).Addr), uint16(peer.(*unix.SockaddrInet4).Port)) == to)
}
