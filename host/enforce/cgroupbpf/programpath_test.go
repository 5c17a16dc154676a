//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Programs whose path is hard to read, or gone.

func init() {
	if os.Getenv("CALLOUTD_HELPER") != "" {
		runtime.LockOSThread() // main stays on the leading thread.
	}
	bypasses["leaderless"] = leaderless
	bypasses["throw and die"] = throwAndDie
	// unlinked: remove its program's file, and connect.
	bypasses["unlinked"] = func(to netip.AddrPort) string {
		if err := os.Remove(os.Args[0]); err != nil {
			return err.Error()
		}
		return try("tcp4", to.String())
	}
	// become: send, and send by the same socket as another program.
	bypasses["become next"] = func(to netip.AddrPort) string {
		err := unix.Sendto(3, []byte("second"), 0, sockaddr(to))
		_, _ = io.Copy(io.Discard, os.Stdin) // Of one that has ended nothing would be known.
		return said(err)
	}
	bypasses["become"] = func(to netip.AddrPort) string {
		fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		err := unix.Sendto(fd, []byte("first"), 0, sockaddr(to))
		_, _, _ = unix.Recvfrom(fd, make([]byte, 16), 0)
		next := os.Getenv("CALLOUTD_NEXT")
		return said(errors.Join(err, unix.Dup3(fd, 3, 0), unix.Exec(next, []string{next, "become next/" + to.String()}, os.Environ())))
	}
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

// copied is this program by another path.
func copied(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(path, b, 0o755))
	return path
}

// A program whose file was removed or replaced while it runs, as an update does, is still the
// one that the policy means.
func TestPathOfAProgramWhoseFileIsGone(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	path := copied(t)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(origin.Port()), condition(fwpm.ConditionALEAppID, fwp.Blob(path)))}}, nil)
	defer s.attach(t).Close()
	h := s.prepare(t, 0, "unlinked/"+origin.String())
	h.cmd.Path, h.cmd.Args[0] = path, path
	require.NoError(t, h.cmd.Start())
	require.Equal(t, []string{"ECONNRESET"}, h.end())
	denials, _ := s.told()
	require.Len(t, denials, 1)
	require.Contains(t, denials[0], path+"[")
}

// What a program sends by the socket of the one that it was before an exec is its own.
func TestDatagramsOfTheNextProgram(t *testing.T) {
	origin := greet(t, "udp4", "127.0.0.1:0", "origin", nil)
	path := copied(t)
	ask := filter(1, authConnect, fwp.ActionCalloutUnknown)
	ask.Callout = "c"
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{ask}}, fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		if v.Action = fwp.ActionPermit; c.In.AppID == path {
			v.Action = fwp.ActionBlock
		}
		return nil
	}))
	defer s.attach(t).Close()
	h := s.prepare(t, 0, "become/"+origin.String())
	h.cmd.Env = append(h.cmd.Env, "CALLOUTD_NEXT="+path)
	require.NoError(t, h.cmd.Start())
	told := func() []string { d, _ := s.told(); return d }
	require.Eventually(t, func() bool { return len(told()) == 1 }, time.Minute, time.Millisecond)
	require.Contains(t, told()[0], path+"[")
	require.Equal(t, []string{"ok"}, h.end(), "its socket, which is not connected, hears of no refusal")
}
