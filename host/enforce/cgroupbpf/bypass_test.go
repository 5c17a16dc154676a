//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Each of these is a way round the decision that a program tries in earnest. Where
// nothing is attached it reaches its aim: the way exists.

// A bypass returns what the calls came to.
var bypasses = map[string]func(to netip.AddrPort) string{
	"uring":         func(to netip.AddrPort) string { return uring(opConnect, unix.SOCK_STREAM, to) },
	"uring-sendmsg": func(to netip.AddrPort) string { return uring(opSendmsg, unix.SOCK_DGRAM, to) },
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

const opSendmsg, opConnect = 9, 16

// uring connects or sends through a ring of its own.
func uring(op byte, kind int, to netip.AddrPort) string {
	var p struct { // struct io_uring_params
		sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
		_                                                    [3]uint32
		sq                                                   struct {
			head, tail, mask, entries, flags, dropped, array, _ uint32
			_                                                   uint64
		}
		cq struct {
			head, tail, mask, entries, overflow, cqes, flags, _ uint32
			_                                                   uint64
		}
	}
	ring, _, e := unix.RawSyscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return "setup " + said(e)
	}
	rings, err := unix.Mmap(int(ring), 0, int(max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*16)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return said(err)
	}
	sqes, err := unix.Mmap(int(ring), 0x10000000, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return said(err)
	}
	sa, word := bytesOf(to), []byte("x")
	msg := &unix.Msghdr{Name: &sa[0], Namelen: uint32(len(sa)), Iov: &unix.Iovec{Base: &word[0], Len: 1}, Iovlen: 1}
	sqes[0] = op
	binary.NativeEndian.PutUint32(sqes[4:], uint32(socket(unix.AF_INET, kind, 0)))
	if op == opConnect {
		binary.NativeEndian.PutUint64(sqes[8:], uint64(len(sa)))
		binary.NativeEndian.PutUint64(sqes[16:], uint64(uintptr(unsafe.Pointer(&sa[0]))))
	} else {
		binary.NativeEndian.PutUint64(sqes[16:], uint64(uintptr(unsafe.Pointer(msg))))
		binary.NativeEndian.PutUint32(sqes[24:], 1)
	}
	binary.NativeEndian.PutUint32(rings[p.sq.tail:], 1) // Entry 0 of the array is submission 0.
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, 1, 0, 0); e != 0 {
		return "enter " + said(e)
	}
	runtime.KeepAlive(msg)
	if n := int32(binary.NativeEndian.Uint32(rings[p.cq.cqes+8:])); n < 0 {
		return said(unix.Errno(-n))
	}
	return "ok"
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

// reached are what came of connections or datagrams at a port.
func reached(t *testing.T, kind int) (at netip.AddrPort, count func() int) {
	fd := socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK, 0)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	if kind == unix.SOCK_STREAM {
		require.NoError(t, unix.Listen(fd, 64))
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port)), func() (n int) {
		for b := make([]byte, 16); ; n++ {
			var err error
			if kind == unix.SOCK_STREAM {
				var c int
				if c, _, err = unix.Accept(fd); err == nil {
					unix.Close(c)
				}
			} else {
				_, _, err = unix.Recvfrom(fd, b, 0)
			}
			if err != nil {
				require.ErrorIs(t, err, unix.EAGAIN)
				return n
			}
		}
	}
}

// native runs the helper outside of the cgroup.
func native(t *testing.T, arg string, files ...*os.File) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0], arg)
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "CALLOUTD_HELPER=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// blocking is a site that blocks a port, by the kernel or, with a callout that is asked
// about everything, by the engine.
func blocking(t *testing.T, p uint16, asks bool) *site {
	policy := &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, port(p))}}
	if !asks {
		return newSite(t, policy, nil)
	}
	policy.Callouts, policy.Filters = []fwpm.Callout{{ID: "c"}}, append(policy.Filters, askAll()...)
	return newSite(t, policy, toProxies(netip.AddrPort{}, netip.AddrPort{}))
}

// A way that some kernels do not have.
var absent = []string{"ENOSYS", "EPERM", "EPROTONOSUPPORT", "setup ENOSYS", "setup EPERM"}

// No way of connecting or sending reaches what is blocked: by the kernel's part, which
// says so, or by the engine.
func TestBypass(t *testing.T) {
	for _, c := range []struct {
		name         string
		kind         int
		native, want string
		there        int // how often it is reached where nothing is attached
	}{
		{name: "uring", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "uring-sendmsg", kind: unix.SOCK_DGRAM, native: "ok", want: "EACCES", there: 1},
		{name: "fastopen", kind: unix.SOCK_STREAM, native: "ok ok ok", want: "EACCES EACCES EACCES", there: 3},
		{name: "deferred", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "mptcp", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "x32", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "sendmmsg", kind: unix.SOCK_DGRAM, native: "2 ok", want: "1 ok", there: 1},
		{name: "udplite", kind: unix.SOCK_DGRAM, native: "ok ok", want: "EACCES"}, // Its connect() does not pass the hooks.
		{name: "device", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "v6only", kind: unix.SOCK_STREAM, native: "ENETUNREACH", want: "EACCES"},
		{name: "reuse", kind: unix.SOCK_DGRAM, native: "ok ok ok ok ok", want: "ok EACCES ok EACCES EACCES", there: 1},
		{name: "unconnected", kind: unix.SOCK_DGRAM, native: "ok ok", want: "ok EACCES", there: 1},
		{name: "raw", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if bypasses[c.name] == nil {
				t.Skip("of another architecture")
			}
			at, count := reached(t, c.kind)
			arg, missing := c.name+"/"+at.String(), false
			got := native(t, arg)
			if missing = slices.Contains(absent, got); missing {
				t.Logf("this kernel has it not: %s", got)
			} else {
				require.Equal(t, c.native, got)
			}
			for !missing && c.there > 0 {
				c.there -= count()
			}
			for _, asks := range []bool{false, true} {
				s := blocking(t, at.Port(), asks)
				a := s.attach(t)
				got := s.run(t, arg)[0]
				if missing {
					require.Contains(t, append(absent, "EACCES"), got)
				} else {
					require.Eventually(t, func() bool { d, _ := s.told(); return len(d) > 0 || got == "ENETUNREACH" }, time.Minute, time.Millisecond, got)
				}
				if !asks && !missing {
					require.Equal(t, c.want, got)
				}
				require.NoError(t, a.Close())
				require.Zero(t, count(), "%v %s", asks, got)
			}
		})
	}
}

// Of a family of which nothing is blocked a raw socket may be made; and none by a
// program when the policy says nothing to anybody.
func TestRawSocketsOfWhatIsPermitted(t *testing.T) {
	s := blocking(t, 25, false)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ok", "EACCES"}, s.run(t, "raw6/[::1]:1", "raw/127.0.0.1:1"))
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 1 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], `by filter 3 "f" (ARB-01): a raw socket of protocol 6 can send where the policy blocks it`)

	open := newSite(t, new(fwpm.Policy), nil)
	defer open.attach(t).Close()
	require.Equal(t, []string{"ok", "ok"}, open.run(t, "raw6/[::1]:1", "raw/127.0.0.1:1"))
}

// What pings is decided as what is neither TCP nor UDP.
func TestPingSockets(t *testing.T) {
	tcp := condition(fwpm.ConditionIPProtocol, fwp.U8(fwps.ProtocolTCP))
	for want, conditions := range map[string][]fwpm.Condition{"ok": {port(25), tcp}, "EACCES": {condition(fwpm.ConditionIPRemoteAddress, net198)}} {
		s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, conditions...)}}, nil)
		a := s.attach(t)
		require.Equal(t, []string{want}, s.start(t, unix.CLONE_NEWNET, "ping/127.0.0.1:1").end())
		require.NoError(t, a.Close())
	}
}

// Calls of i386 by a program of x86-64 pass the same hooks.
func TestBypassI386(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x86-64 only")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(src, []byte(int80), 0o600))
	b, err := exec.Command(gcc, "-o", bin, src).CombinedOutput()
	require.NoError(t, err, string(b))
	at, count := reached(t, unix.SOCK_STREAM)
	in := func(s *site) string {
		cmd := exec.CommandContext(t.Context(), bin, strconv.Itoa(int(at.Port())))
		if s != nil {
			dir, err := os.Open(s.cgroup)
			require.NoError(t, err)
			defer dir.Close()
			cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		}
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	if got := in(nil); strings.Contains(got, "connect -38") {
		t.Logf("this kernel has no i386 calls")
		return
	}
	for n := 0; n < 3; {
		n += count()
	}
	s := blocking(t, at.Port(), false)
	defer s.attach(t).Close()
	require.Equal(t, "connect -13\nsocketcall -13\nsocketcall sendto -13\n", in(s))
	require.Zero(t, count())
}

const int80 = `
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
static long call(long nr, long a, long b, long c) {
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return r;
}
int main(int argc, char **argv) {
	char *low = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT, -1, 0);
	struct sockaddr_in *sa = (void *)low;
	unsigned *args = (unsigned *)(low + 64);
	sa->sin_family = AF_INET; sa->sin_port = htons(atoi(argv[1])); sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	printf("connect %ld\n", call(362, socket(AF_INET, SOCK_STREAM, 0), (long)sa, sizeof *sa));
	args[0] = socket(AF_INET, SOCK_STREAM, 0); args[1] = (unsigned)(long)sa; args[2] = sizeof *sa;
	printf("socketcall %ld\n", call(102, 3, (long)args, 0));
	args[0] = socket(AF_INET, SOCK_STREAM, 0); args[2] = 1; args[3] = MSG_FASTOPEN; args[4] = (unsigned)(long)sa; args[5] = sizeof *sa;
	printf("socketcall sendto %ld\n", call(102, 11, (long)args, 0));
}`

// A socket that is bound to a device from which calloutd is not reached is refused at
// once, and not when the connection times out.
func TestSocketsBoundToADevice(t *testing.T) {
	s := namespaceSite(t)
	defer s.attach(t).Close()
	require.Equal(t, []string{"up", "EACCES EACCES"}, s.start(t, unix.CLONE_NEWNET, "up/", "veth/198.51.100.7:80").end())
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 2 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], "its socket is bound to a device")
	require.Equal(t, []string{"ok"}, s.run(t, "device/198.51.100.7:80"), "loopback is not in the way")
}

// A socket that is connected anew has nothing of the redirect before.
func TestSocketsThatAreConnectedAnew(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	proxy := greet(t, "tcp4", "127.0.0.1:0", "proxy", nil)
	redirect := fwpm.Filter{ID: 1, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c", Conditions: []fwpm.Condition{condition(fwpm.ConditionIPRemoteAddress, net198)}}
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{redirect}}, redirecting(func(bool) netip.AddrPort { return proxy }))
	defer s.attach(t).Close()
	require.Equal(t, []string{"ok ok ok true"}, s.run(t, "stale/"+origin.String()))
}

// A socket belongs to the cgroup that it was made in: outside it is decided like
// inside, and one that somebody outside gave to a program is not the cgroup's.
func TestSocketsBelongToTheirCgroup(t *testing.T) {
	at, count := reached(t, unix.SOCK_STREAM)
	s := blocking(t, at.Port(), false)
	defer s.attach(t).Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()

	require.Equal(t, []string{"ok"}, s.with(t, theirs, "passes/"+at.String()))
	require.Equal(t, "EACCES", native(t, "passed/"+at.String(), ours), "made inside")
	require.Zero(t, count())

	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer unix.Close(fd)
	require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0))
	require.Equal(t, []string{"ok"}, s.with(t, theirs, "passed/"+at.String()), "made outside")
}

// with runs the helper in the cgroup with a file as descriptor 3.
func (s *site) with(t *testing.T, f *os.File, args ...string) []string {
	h := s.prepare(t, 0, args...)
	h.cmd.ExtraFiles = []*os.File{f}
	require.NoError(t, h.cmd.Start())
	return h.end()
}
