//go:build linux && (amd64 || arm64)

package seccomp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// What the supervisor does for a program it may do itself, and the program perhaps not.

func init() {
	// marks: send with control messages for which the kernel wants a right, and with one
	// for which it wants none.
	programs["marks"] = func(args []string) {
		if len(args) > 2 {
			becomeNobody()
		}
		for _, c := range []struct {
			what, to string
			control  []byte
		}{
			{"mark", args[0], controlOf(unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, 7))},
			{"hop by hop", args[1], controlOf(unix.SOL_IPV6, unix.IPV6_HOPOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0})},
			{"type of service", args[0], controlOf(unix.SOL_IP, unix.IP_TOS, binary.NativeEndian.AppendUint32(nil, 8))},
		} {
			to := must(c.to)
			for _, connected := range []bool{false, true} {
				fd, peer := newSocket(int(domainOf(to.Addr())), unix.SOCK_DGRAM), sockaddrFor(to)
				if connected {
					check(unix.Connect(fd, peer))
					peer = nil
				}
				_, err := unix.SendmsgN(fd, []byte("x"), c.control, peer, 0)
				say(c.what, connected, name(errno(err)))
			}
		}
	}
	// owner: become nobody, and share the port of somebody else's socket.
	programs["owner"] = func(args []string) {
		becomeNobody()
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		var st unix.Stat_t
		check(unix.Fstat(fd, &st))
		check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		say(st.Uid, st.Gid, name(sysBind(fd, sockaddrOf(must(args[0])))))
	}
	// powerless: connect to a path as root without capabilities, in a process of several threads.
	programs["powerless"] = func(args []string) {
		_, _ = thread(func() { select {} })
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		check(unix.Capset(&h, &none[0]))
		for _, path := range args {
			say(name(errno(unix.Connect(newSocket(unix.AF_UNIX, unix.SOCK_STREAM), &unix.SockaddrUnix{Name: path}))))
		}
	}
}

func sockaddrFor(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// becomeNobody makes another user of the thread, which is the one that goes on.
func becomeNobody() {
	_, _, e := unix.RawSyscall(unix.SYS_SETRESGID, nobodyID, nobodyID, nobodyID)
	check(callErr(e))
	_, _, e = unix.RawSyscall(unix.SYS_SETRESUID, nobodyID, nobodyID, nobodyID)
	check(callErr(e))
}

// A mark chooses routes and passes firewalls: who may not set one does not send with the
// supervisor's right to.
func TestDatagramsDoNotBorrowRights(t *testing.T) {
	asRoot(t)
	u4, _ := udpServer(t, "x")
	u6, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	defer u6.Close()
	args := []string{u4.String(), u6.LocalAddr().String()}
	asNobody := append(args, "as nobody")
	may := native(t, "marks", args...)
	mayNot := native(t, "marks", asNobody...)
	require.Contains(t, may, "mark false ok\nmark true ok\nhop by hop false ok\n")
	require.Contains(t, mayNot, "mark false EPERM\nmark true EPERM\nhop by hop false EPERM\n")
	require.Contains(t, mayNot, "type of service false ok\ntype of service true ok\n")
	require.Equal(t, may, run(t, permit, "marks", args...))
	require.Equal(t, mayNot, run(t, permit, "marks", asNobody...))
	require.Equal(t, mayNot, runIsolated(t, Options{ALE: permit}, helper("marks", args...)), "root of another user namespace")
	require.Equal(t, mayNot, runIsolated(t, Options{ALE: permit}, helper("marks", asNobody...)))
}

// A socket that is made outside for a program is its user's, as others see: so it does not
// share root's ports.
func TestIsolatedSocketsAreTheirUsers(t *testing.T) {
	asRoot(t)
	fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	defer unix.Close(fd)
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 1))
	_, at, _ := getName(fd)
	const want = "65534 65534 EADDRINUSE\n"
	require.Equal(t, want, native(t, "owner", at.String()))
	require.Equal(t, want, runIsolated(t, Options{ALE: permit}, helper("owner", at.String())))
}

// Where a program could not go itself it is not led.
func TestIsolatedProgramFindsNoSocketsOfOthers(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	require.NoError(t, os.Mkdir(theirs, 0o700))
	require.NoError(t, os.Chown(theirs, nobodyID, nobodyID))
	serve(t, "unix", filepath.Join(theirs, "socket"), "hello")
	require.Equal(t, "EACCES\n", native(t, "powerless", filepath.Join(theirs, "socket")))
	var said []string
	need(t, enforce.UserNS)
	out, _ := supervise(t, Options{ALE: permit, Isolate: true, Logf: func(f string, a ...any) { said = append(said, f) }}, helper("powerless", filepath.Join(theirs, "socket")))
	require.Equal(t, "EACCES\n", out)
	require.NotEmpty(t, said)
}
