//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Programs whose path is hard to read, or gone.

func init() {
	if os.Getenv("CALLOUTD_HELPER") != "" {
		runtime.LockOSThread() // main stays on the leading thread.
	}
	bypasses["leaderless"] = leaderless
	bypasses["throw and die"] = throwAndDie
}

// leaderless ends the leading thread of its process, and connects from another one.
func leaderless(to netip.AddrPort) string {
	go func() {
		for state := byte('R'); state != 'Z'; {
			stat, err := os.ReadFile("/proc/self/stat")
			if err != nil {
				panic(err)
			}
			_, after, _ := bytes.Cut(stat, []byte(") "))
			state = after[0]
		}
		_, _ = os.Stdout.WriteString(try("tcp4", to.String()) + "\n")
		os.Exit(0)
	}()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // Not a RawSyscall, which keeps the processor: it may be the only one.
	panic("still there")
}

// throwAndDie connects and sends, again and again, and is killed at once.
func throwAndDie(to netip.AddrPort) string {
	for range 64 {
		tcp, udp := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0), socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		_ = connectTo(tcp, to)
		_, _ = unix.Write(tcp, []byte("x"))
		_ = unix.Sendto(udp, []byte("x"), 0, sockaddr(to))
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {}
}

// A process whose leading thread has ended has its path in the others.
func TestPathOfAProcessWithoutItsLeader(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	require.Equal(t, "origin from "+origin.String(), native(t, "leaderless/"+origin.String()))
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(origin.Port()), condition(fwpm.ConditionALEAppID, fwp.Blob(exe)))}}, nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ECONNRESET"}, s.run(t, "leaderless/"+origin.String()))
	denials, _ := s.told()
	require.Len(t, denials, 1)
	require.Contains(t, denials[0], exe+"[")
}

// Where the policy decides by programs, what one sends that has ended before anybody could
// look is refused: it may be the one that is blocked.
func TestBypassByEnding(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	require.NoError(t, err)
	defer u.Close()
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	policy := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: append(askAll(), filter(3, authConnect, fwp.ActionBlock, port(at.Port()), condition(fwpm.ConditionALEAppID, fwp.Blob(exe))))}
	s := newSite(t, policy, toProxies(netip.AddrPort{}, netip.AddrPort{}))
	a := s.attach(t)
	late := &own(a).datagrams[ip4].mu // Nobody looks at a datagram before the program has ended.
	late.Lock()
	h := s.start(t, 0, "throw and die/"+at.String())
	err = h.cmd.Wait()
	late.Unlock()
	require.Error(t, err)
	told := func() []string { d, _ := s.told(); return d }
	require.Eventually(t, func() bool { return len(told()) == 128 }, time.Minute, time.Millisecond)
	require.NoError(t, a.Close())
	ended := 0
	for _, d := range told() {
		if strings.Contains(d, "its program has ended, and the policy decides by programs") {
			ended++
		}
	}
	require.GreaterOrEqual(t, ended, 64, "the datagrams, and the connections that nobody looked at in time")
	require.NoError(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(10*time.Millisecond)))
	_, err = l.Accept()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, u.SetDeadline(time.Now().Add(10*time.Millisecond)))
	_, _, err = u.ReadFrom(make([]byte, 9))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
