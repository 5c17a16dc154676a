//go:build linux && (amd64 || arm64)

package seccomp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	programs["udp"] = func(args []string) { // how, to...: send, and print the answers
		for _, a := range args[1:] {
			to := must(a)
			fd := newSocket(int(domainOf(to.Addr())), unix.SOCK_DGRAM)
			e := senders[args[0]](fd, sockaddrOf(to))
			if e != 0 {
				say(name(e))
				continue
			}
			say(name(e), read(fd))
		}
	}
	programs["udp again"] = func(args []string) { // one socket, several datagrams
		fd := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
		for range 3 {
			for _, a := range args {
				say(name(senders["sendto"](fd, sockaddrOf(must(a)))), read(fd))
			}
		}
	}
	// udp reconnect: a socket is connected to one and then to another.
	programs["udp reconnect"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
		for _, a := range args {
			say(name(sysConnect(fd, sockaddrOf(must(a)))))
			_, err := unix.Write(fd, []byte("ping"))
			say(name(errno(err)), read(fd))
		}
	}
	// udp goes on: a socket is connected to each, sends, and says whether it may still when it
	// has heard of the flow's end; by another number than the first one's if "moved".
	programs["udp goes on"] = func(args []string) {
		fd := newSocket(int(domainOf(must(args[1]).Addr())), unix.SOCK_DGRAM)
		for _, a := range args[1:] {
			say(name(sysConnect(fd, sockaddrOf(must(a)))))
			if args[0] == "moved" {
				moved, err := unix.Dup(fd)
				check(err)
				check(unix.Close(fd))
				fd = moved
			}
		}
		say("aborts")
		_, _ = os.Stdin.Read(make([]byte, 1))
		_, err := unix.Write(fd, []byte("ping"))
		say(name(errno(err)))
		say(name(sysConnect(fd, sockaddrOf(must(args[len(args)-1])))))
		_, err = unix.Write(fd, []byte("pong"))
		say(name(errno(err)), read(fd))
	}
	// udp lent: a socket that this program has bound, and sent on, sends for others: a thread
	// that has become another user, another program, and a child that is another process.
	programs["udp lent"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
		check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		send := senders["sendto"]
		say("itself", name(send(fd, sockaddrOf(must(args[0])))), read(fd))
		_, done := thread(func() {
			_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobodyID, ^uintptr(0))
			check(callErr(e))
			_, _, e = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
			check(callErr(e))
			say("another user", name(send(fd, sockaddrOf(must(args[0])))), name(send(fd, sockaddrOf(must(args[1])))))
		})
		<-done
		c := exec.Command(args[2], args[:2]...)
		c.Env, c.Stdout, c.ExtraFiles = append(os.Environ(), programEnv+"=udp borrowed"), os.Stdout, []*os.File{os.NewFile(uintptr(fd), "socket")}
		check(c.Run())
	}
	programs["udp borrowed"] = func(args []string) {
		say("another program", name(senders["sendto"](3, sockaddrOf(must(args[0])))), name(senders["sendto"](3, sockaddrOf(must(args[1])))))
	}
	programs["udp errnos"] = datagramErrnos
	programs["udp flip"] = func(args []string) {
		a, b := sockaddrOf(must(args[0])), sockaddrOf(must(args[1]))
		sa := sockaddrOf(must(args[0]))
		var stop atomic.Bool
		_, flipped := thread(func() {
			for !stop.Load() {
				copy(sa, b)
				copy(sa, a)
			}
		})
		for how, send := range senders {
			seen := map[unix.Errno]int{}
			for n := 0; n < 100_000 && (seen[0] < 100 || seen[unix.EACCES] < 100); n++ {
				fd := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
				seen[send(fd, sa)]++
				unix.Close(fd)
			}
			delete(seen, unix.EPROTO) // One of two messages was sent.
			if seen[0] == 0 || seen[unix.EACCES] == 0 || len(seen) != 2 {
				say(how, seen)
			}
		}
		stop.Store(true)
		<-flipped
	}
}

// senders are the ways to send a datagram that names its destination.
var senders = map[string]func(fd int, sa []byte) unix.Errno{
	"connect": func(fd int, sa []byte) unix.Errno {
		if e := sysConnect(fd, sa); e != 0 {
			return e
		}
		_, err := unix.Write(fd, []byte("ping"))
		return errno(err)
	},
	"sendto": func(fd int, sa []byte) unix.Errno {
		b := []byte("ping")
		_, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 4, 0, uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
		return e
	},
	"sendmsg": func(fd int, sa []byte) unix.Errno {
		h := header(sa, "pi", "ng")
		_, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), 0)
		return e
	},
	"sendmmsg": func(fd int, sa []byte) unix.Errno {
		hs := [2]unix.Mmsghdr{{Hdr: header(sa, "ping")}, {Hdr: header(sa, "", "pong")}}
		n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&hs)), 2, 0, 0, 0)
		if e == 0 && (n != 2 || hs[0].Len != 4 || hs[1].Len != 4) {
			return unix.EPROTO
		}
		return e
	},
}

func header(sa []byte, parts ...string) (h unix.Msghdr) {
	iov := make([]unix.Iovec, len(parts))
	for i, p := range parts {
		iov[i].Base = unsafe.StringData(p)
		iov[i].SetLen(len(p))
	}
	h.Name, h.Namelen = unsafe.SliceData(sa), uint32(len(sa))
	h.Iov, h.Iovlen = unsafe.SliceData(iov), uint64(len(iov))
	return h
}

func datagramErrnos(args []string) {
	to := must(args[0])
	sa := sockaddrOf(to)
	fresh := func() int { return newSocket(unix.AF_INET, unix.SOCK_DGRAM) }
	sendto := func(what string, fd int, size int, flags int, sa []byte) {
		b := make([]byte, max(size, 1))
		n, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(size), uintptr(flags), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
		say(what, name(e), int(n))
	}
	sendto("nothing", fresh(), 0, 0, sa)
	sendto("much", fresh(), 60_000, 0, sa)
	sendto("too much", fresh(), 65_508, 0, sa)
	sendto("far too much", fresh(), 100_000, 0, sa)
	sendto("short", fresh(), 4, 0, sa[:8])
	sendto("too long", fresh(), 4, 0, make([]byte, 129))
	sendto("no port", fresh(), 4, 0, sockaddrOf(netip.AddrPortFrom(to.Addr(), 0)))
	unspec := sockaddrOf(to)
	binary.NativeEndian.PutUint16(unspec, unix.AF_UNSPEC)
	sendto("unspec", fresh(), 4, 0, unspec)
	sendto("family", fresh(), 4, 0, putSockaddr(make([]byte, sockaddr6Len), unix.AF_INET6, to))
	v6 := newSocket(unix.AF_INET6, unix.SOCK_DGRAM)
	sendto("mapped", v6, 4, 0, putSockaddr(make([]byte, sockaddr6Len), unix.AF_INET6, to))
	sendto("v4 address on v6", v6, 4, 0, sa)
	sendto("no socket", 0, 4, 0, sa)
	sendto("out of band", fresh(), 4, unix.MSG_OOB, sa)
	sendto("broadcast", fresh(), 4, 0, sockaddrOf(must("255.255.255.255:9")))
	fd := fresh()
	say("connect", name(sysConnect(fd, sa)))
	say("to nowhere", name(sysConnect(fd, sa[:4])))
	h := header(nil, "x")
	msg := func(what string, fd int, h *unix.Msghdr) {
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), 0)
		say(what, name(e), int(n))
	}
	msg("connected", fd, &h)
	say("disconnect", name(sysConnect(fd, make([]byte, 16))))
	msg("unconnected", fd, &h)
	h = header(sa)
	msg("no vector", fresh(), &h)
	h = header(sa, "x")
	h.Iov.Base = &nowhereToRead()[0]
	msg("fault", fresh(), &h)
	h = header(sa, "x")
	h.Iovlen = 2000
	msg("vectors", fresh(), &h)
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{127, 0, 0, 3}})
	h = header(sa, "from 127.0.0.3")
	h.Control, h.Controllen = &info[0], uint64(len(info))
	msg("source", fresh(), &h)
	segment := make([]byte, unix.CmsgSpace(2))
	c := (*unix.Cmsghdr)(unsafe.Pointer(&segment[0]))
	c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(segment[unix.CmsgLen(0):], 2)
	h = header(sa, "ab", "cd", "ef")
	h.Control, h.Controllen = &segment[0], uint64(len(segment))
	msg("segments", fresh(), &h)
	bad := [3]unix.Mmsghdr{{Hdr: header(sa, "ok")}, {Hdr: header(sa[:3], "bad")}, {Hdr: header(sa, "ok")}}
	n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fresh()), uintptr(unsafe.Pointer(&bad)), 3, 0, 0, 0)
	say("one of three", name(e), int(n), bad[0].Len, bad[1].Len, bad[2].Len)
	n, _, e = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fresh()), uintptr(unsafe.Pointer(&bad[1])), 1, 0, 0, 0)
	say("none", name(e), int(n))
	closed := fresh()
	say("refused", name(sysConnect(closed, sockaddrOf(netip.AddrPortFrom(to.Addr(), 1)))))
	_, err := unix.Write(closed, []byte("x"))
	say(name(errno(err)))
	h = header(nil, "x")
	msg("refused", closed, &h)
}

// udpServer answers every datagram with a word and what it got, and notes it.
func udpServer(t testing.TB, word string) (addr netip.AddrPort, got func() string) {
	return udpServerAt(t, "127.0.0.1", word)
}

func udpServerAt(t testing.TB, at, word string) (addr netip.AddrPort, got func() string) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(at)})
	require.NoError(t, err)
	var mu sync.Mutex
	var all []string
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, string(b[:n]))
			mu.Unlock()
			_, _ = c.WriteToUDPAddrPort(append([]byte(word+" "), b[:n]...), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(all, ",")
	}
}

func TestDatagramsAreDecided(t *testing.T) {
	good, _ := udpServer(t, "good")
	bad, got := udpServer(t, "bad")
	mapped := netip.AddrPortFrom(netip.AddrFrom16(good.Addr().As16()), good.Port())
	for how := range senders {
		t.Run(how, func(t *testing.T) {
			var denied []enforce.Denial
			p := policy(func(in fwps.Incoming) netip.AddrPort {
				if in.Remote.Port() == bad.Port() {
					return netip.AddrPort{}
				}
				return in.Remote
			})
			out, _ := supervise(t, Options{ALE: deciding(p), OnBlocked: func(d enforce.Denial) { denied = append(denied, d) }},
				helper("udp", how, good.String(), bad.String(), mapped.String()))
			require.Equal(t, "ok good ping\nEACCES\nok good ping\n", out)
			require.Len(t, denied, 1)
			require.Equal(t, bad, denied[0].Remote)
		})
	}
	require.Empty(t, got())
}

// A connect that is refused leaves the socket with the peer that it had.
func TestBypassDatagramReconnect(t *testing.T) {
	good, _ := udpServer(t, "good")
	bad, got := udpServer(t, "bad")
	require.Equal(t, "ok\nok good ping\nEACCES\nok good ping\n", run(t, deciding(only(good)), "udp reconnect", good.String(), bad.String()))
	require.Empty(t, got())
}

func TestDatagramsAreRedirected(t *testing.T) {
	proxy, _ := udpServer(t, "proxy")
	for how := range senders {
		t.Run(how, func(t *testing.T) {
			require.Equal(t, "ok proxy ping\n", run(t, redirectTo(proxy), "udp", how, test4))
		})
	}
}

// ALE-LAY-04, ALE-LAY-05, SC-82, SC-83: which layers a flow is taken through.
func TestDatagramLayers(t *testing.T) {
	a, _ := udpServer(t, "a")
	b, _ := udpServer(t, "b")
	l := &layers{}
	require.Equal(t, strings.Repeat("ok a ping\nok b ping\n", 3), run(t, l.enforcer(), "udp again", a.String(), b.String()))
	var asked []string
	for _, in := range l.seen {
		asked = append(asked, strings.TrimSuffix(strings.TrimPrefix(in.Layer.String(), "ALE_"), "_V4")+" "+in.Remote.String())
		require.Equal(t, fwps.ProtocolUDP, in.Protocol)
	}
	none := "invalid AddrPort"
	require.Equal(t, []string{"BIND_REDIRECT " + none, "RESOURCE_ASSIGNMENT " + none,
		"CONNECT_REDIRECT " + a.String(), "AUTH_CONNECT " + a.String(), "FLOW_ESTABLISHED " + a.String(),
		"CONNECT_REDIRECT " + b.String(), "AUTH_CONNECT " + b.String(), "FLOW_ESTABLISHED " + b.String(),
	}, asked[:8])
	require.NotZero(t, l.seen[1].Local.Port(), "the port is known before the flow")
	require.Equal(t, l.seen[1].Local, l.seen[2].Local)

	l = &layers{}
	require.Equal(t, "ok a ping\n", run(t, l.enforcer(), "udp", "connect", a.String()))
	n := map[fwpm.LayerID]int{}
	for _, in := range l.seen {
		n[in.Layer]++
	}
	require.Equal(t, 2, n[fwpm.LayerALEConnectRedirectV4])
	require.Equal(t, 1, n[fwpm.LayerALEAuthConnectV4])
	require.Equal(t, 1, n[fwpm.LayerALEFlowEstablishedV4])
}

func TestDatagramErrnosAreNative(t *testing.T) {
	for range 2 { // Whoever has an error waiting, tells it once.
		to, _ := udpServer(t, "x")
		out := run(t, permit, "udp errnos", to.String())
		require.Equal(t, native(t, "udp errnos", to.String()), out)
		for _, line := range []string{"much ok 60000", "too much EMSGSIZE -1", "source ok 14", "segments ok 6", "one of three ok 1 2 0 0"} {
			require.Contains(t, out, line+"\n")
		}
	}
}

func TestBypassSwappedDatagramAddress(t *testing.T) {
	good, _ := udpServer(t, "good")
	bad, got := udpServer(t, "bad")
	require.Empty(t, run(t, deciding(only(good)), "udp flip", good.String(), bad.String()))
	require.Empty(t, got())
}

// What decides is who sends, and not who has bound the socket or was there first.
func TestBypassByALentSocket(t *testing.T) {
	asRoot(t)
	a, _ := udpServer(t, "a")
	b, got := udpServer(t, "b")
	other := copyBinary(t, "other")
	p := policy(func(in fwps.Incoming) netip.AddrPort {
		if in.UserID == nobodyID || in.AppID == other {
			return netip.AddrPort{}
		}
		return in.Remote
	})
	require.Equal(t, "itself ok a ping\nanother user EACCES EACCES\nanother program EACCES EACCES\n", run(t, deciding(p), "udp lent", a.String(), b.String(), other))
	require.Empty(t, got())
}

// A program that makes sockets, or sends to addresses, as fast as it can fills no memory;
// what is in use stays.
func TestDatagramsAreBounded(t *testing.T) {
	s := &supervisor{opts: Options{ALE: permit}, datagrams: datagrams{bySender: map[sender]*datagram{}}}
	w := &worker{s: s}
	used := s.datagrams.take(w)
	for cookie := range uint64(1000) {
		w.sock.cookie = 1 + cookie
		d := s.datagrams.take(w)
		d.begun.Add(maxKept / 100)
		s.datagrams.give(d)
		require.LessOrEqual(t, s.datagrams.kept, maxKept+maxKept/100+1)
	}
	w.sock.cookie = 0
	require.Same(t, used, s.datagrams.take(w))
	require.NotEmpty(t, s.datagrams.bySender)
}
