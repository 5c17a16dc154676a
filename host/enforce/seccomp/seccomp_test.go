//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var _ ALE = (*ale.Enforcer)(nil)

// fakeALE answers with a destination; the zero AddrPort blocks.
type fakeALE func(in fwps.Incoming) netip.AddrPort

func (f fakeALE) Connect(ctx context.Context, ep ale.Endpoint) (*ale.Flow, error) {
	in := ep.Incoming()
	to := f(in)
	if !to.IsValid() {
		return nil, &ale.BlockedError{Remote: in.Remote, Why: "test"}
	}
	local, err := ep.Connect(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("fake: %w", err)
	}
	return &ale.Flow{Local: local}, nil
}

var permit = fakeALE(func(in fwps.Incoming) netip.AddrPort { return in.Remote })

func redirectTo(to netip.AddrPort) fakeALE {
	return func(fwps.Incoming) netip.AddrPort { return to }
}

// need skips where the kernel cannot, and only there.
func need(t testing.TB) {
	if err := enforce.Missing(enforce.Probe()); err != nil {
		t.Skip(err)
	}
}

// serve greets whoever connects with a word.
func serve(t testing.TB, network, addr, word string) netip.AddrPort {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(word))
			c.Close()
		}
	}()
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

func helper(h string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+h)
	cmd.Stderr = os.Stderr
	return cmd
}

func run(t testing.TB, a ALE, h string, args ...string) (string, *os.ProcessState) {
	need(t)
	var out bytes.Buffer
	cmd := helper(h, args...)
	cmd.Stdout = &out
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	st, err := Run(ctx, Options{ALE: a, Logf: t.Logf}, cmd)
	require.NoError(t, err)
	return out.String(), st
}

func native(t testing.TB, h string, args ...string) string {
	out, err := helper(h, args...).Output()
	require.NoError(t, err)
	return string(out)
}

const (
	test4      = "203.0.113.10:80" // documentation addresses: never reached
	test6      = "[2001:db8::10]:80"
	testMapped = "[::ffff:203.0.113.10]:80"
)

func TestRedirect(t *testing.T) {
	p4 := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	p6 := serve(t, "tcp6", "[::1]:0", "proxy")
	var mu sync.Mutex
	var seen []fwps.Incoming
	out, _ := run(t, fakeALE(func(in fwps.Incoming) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, in)
		switch a := in.Remote.Addr(); {
		case a.Is4():
			return p4
		case a.Is4In6():
			return netip.AddrPortFrom(netip.AddrFrom16(p4.Addr().As16()), p4.Port())
		}
		return p6
	}), "dial", test4, test6, testMapped)
	require.Equal(t, strings.Repeat("ok proxy\n", 3), out)
	require.Len(t, seen, 3)
	exe, err := filepath.EvalSymlinks(os.Args[0])
	require.NoError(t, err)
	for i, want := range []string{test4, test6, testMapped} {
		in := seen[i]
		require.Equal(t, must(want), in.Remote)
		require.Equal(t, exe, in.AppID)
		require.Equal(t, uint32(os.Geteuid()), in.UserID)
		require.True(t, in.UserKnown)
		require.NotZero(t, in.ProcessID)
		require.NotZero(t, in.EndpointID)
		require.Equal(t, fwps.ProtocolTCP, in.Protocol)
	}
	require.NotEqual(t, seen[0].EndpointID, seen[1].EndpointID)
}

func TestNonBlocking(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	out, _ := run(t, redirectTo(p), "nonblocking", test4)
	require.Equal(t, "EINPROGRESS\nproxy\nok\n", out)
	require.Equal(t, native(t, "nonblocking", p.String()), out)
}

func TestErrnosAreNative(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy").String()
	out, _ := run(t, permit, "states", p)
	require.Equal(t, native(t, "states", p), out)
	require.Contains(t, out, "fault EFAULT\n")
	require.Contains(t, out, "again EISCONN\n")
}

func TestBlocked(t *testing.T) {
	need(t)
	var denied []Denial
	var out bytes.Buffer
	cmd := helper("dial", test4)
	cmd.Stdout = &out
	st, err := Run(t.Context(), Options{ALE: redirectTo(netip.AddrPort{}), OnBlocked: func(d Denial) { denied = append(denied, d) }}, cmd)
	require.NoError(t, err)
	require.True(t, st.Success())
	require.Equal(t, "EACCES \n", out.String())
	require.Len(t, denied, 1)
	require.Equal(t, must(test4), denied[0].Remote)
	require.Equal(t, uint32(cmd.Process.Pid), denied[0].PID)
	var b *ale.BlockedError
	require.ErrorAs(t, denied[0].Err, &b)
}

// silent lets nothing go and says nothing.
type silent struct{}

func (silent) Connect(context.Context, ale.Endpoint) (*ale.Flow, error) { return nil, nil }

func TestSilentALEBlocks(t *testing.T) {
	out, _ := run(t, silent{}, "dial", test4)
	require.Equal(t, "EACCES \n", out)
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix", path, "hello")
	out, _ := run(t, redirectTo(netip.AddrPort{}), "unix", path)
	require.Equal(t, "hello\n", out)
}

func TestThreads(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	out, _ := run(t, redirectTo(p), "threads", test4)
	require.Equal(t, "1280\n", out)
}

func TestStuckDecisionsDoNotStopOthers(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	start := time.Now()
	out, _ := run(t, fakeALE(func(fwps.Incoming) netip.AddrPort {
		time.Sleep(50 * time.Millisecond)
		return p
	}), "threads", test4)
	require.Equal(t, "1280\n", out)
	require.Less(t, time.Since(start), 20*time.Second) // 64 s one after the other
}

func TestSignalStorm(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	for _, d := range []time.Duration{20 * time.Millisecond, 300 * time.Millisecond} { // below and above patience
		out, _ := run(t, fakeALE(func(fwps.Incoming) netip.AddrPort { time.Sleep(d); return p }), "alarm", test4)
		require.Equal(t, "20\n", out)
	}
}

// full returns an address whose backlog is full, so that a connect waits until
// drain makes room.
func full(t *testing.T) (addr netip.AddrPort, drain func()) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(l, 0))
	_, addr, _ = getName(l)
	c, e := dial(addr)
	require.Zero(t, e)
	t.Cleanup(func() { unix.Close(c); unix.Close(l) })
	return addr, func() {
		if fd, _, err := unix.Accept(l); err == nil {
			unix.Close(fd)
		}
	}
}

func TestSignalRestartsConnect(t *testing.T) {
	to, drain := full(t)
	timer := time.AfterFunc(900*time.Millisecond, drain)
	defer timer.Stop()
	out, _ := run(t, permit, "restart", to.String())
	require.Equal(t, "ok true\n", out)
}

func TestSignalInterruptsConnect(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	need(t)
	to, _ := full(t)
	cmd := exec.Command("python3", "-c", `
import signal, socket, sys
def stop(*a): raise InterruptedError
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try: socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except InterruptedError: print("interrupted")
`, strconv.Itoa(int(to.Port())))
	var out bytes.Buffer
	cmd.Stdout = &out
	start := time.Now()
	_, err := Run(t.Context(), Options{ALE: permit}, cmd)
	require.NoError(t, err)
	require.Equal(t, "interrupted\n", out.String())
	require.Less(t, time.Since(start), 10*time.Second)
}

func TestRefused(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "direct").String()
	out, _ := run(t, permit, "refused", p)
	inet := "mptcp EPROTONOSUPPORT\nsctp EPROTONOSUPPORT\ntcp ok\nudp ok\n"
	want := strings.Repeat("uring ENOSYS\n", 3) + "sendto EOPNOTSUPP\nsendmsg EOPNOTSUPP\nsendmmsg EOPNOTSUPP\n" +
		inet + inet + "smc EAFNOSUPPORT\nrds EAFNOSUPPORT\nunix ok\n"
	if foreignNR == 0x40000000 {
		want += "x32 ENOSYS\n"
	}
	require.Equal(t, want, out)
}

func TestI386Refused(t *testing.T) {
	if auditArch != unix.AUDIT_ARCH_X86_64 {
		t.Skip("not x86_64")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip(err)
	}
	need(t)
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(src, []byte(`int main(void){int r;__asm__ volatile("int $0x80":"=a"(r):"a"(20):"memory");return r<0?-r:0;}`), 0o600))
	b, err := exec.Command(gcc, "-o", bin, src).CombinedOutput()
	require.NoError(t, err, string(b))
	st, err := Run(t.Context(), Options{ALE: permit}, exec.Command(bin))
	require.NoError(t, err)
	require.Equal(t, int(unix.ENOSYS), st.ExitCode())
}

func TestExitIsKept(t *testing.T) {
	_, st := run(t, permit, "exit", "42")
	require.Equal(t, 42, st.ExitCode())
	_, st = run(t, permit, "die")
	require.Equal(t, unix.SIGKILL, st.Sys().(interface{ Signal() unix.Signal }).Signal())
}

func TestSIGTERMIsPassedOn(t *testing.T) {
	need(t)
	cmd := helper("term")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	go func() {
		if l, _ := bufio.NewReader(out).ReadString('\n'); l == "ready\n" {
			_ = unix.Kill(os.Getpid(), unix.SIGINT) // ignored
			_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		}
	}()
	st, err := Run(t.Context(), Options{ALE: permit}, cmd)
	require.NoError(t, err)
	require.Equal(t, 9, st.ExitCode())
}

func TestOrphanIsServed(t *testing.T) {
	need(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := helper("orphan", test4)
	cmd.Stdout = w
	st, err := Run(t.Context(), Options{ALE: redirectTo(p)}, cmd)
	w.Close()
	require.NoError(t, err)
	require.Equal(t, 7, st.ExitCode())
	l, _ := bufio.NewReader(r).ReadString('\n')
	require.Equal(t, "late ok proxy\n", l)
}

func TestCancel(t *testing.T) {
	need(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := helper("sleep")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	go func() {
		_, _ = bufio.NewReader(out).ReadString('\n')
		cancel()
	}()
	start := time.Now()
	st, err := Run(ctx, Options{ALE: permit}, cmd)
	require.ErrorIs(t, err, context.Canceled)
	require.NotNil(t, st)
	require.Less(t, time.Since(start), 10*time.Second)
}

func TestNested(t *testing.T) {
	out, _ := run(t, permit, "nested")
	require.Equal(t, "a seccomp listener inside another is not supported on this system: this process already runs under one; run it outside\n", out)
}

func TestStartFails(t *testing.T) {
	need(t)
	_, err := Run(t.Context(), Options{ALE: permit}, exec.Command("/nonexistent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRace(t *testing.T) {
	for _, c := range enforce.Probe() {
		if c.Name == enforce.LandlockTCP && !c.Supported {
			t.Skip(c.Detail)
		}
	}
	p := serve(t, "tcp4", "127.0.0.1:0", "direct")
	out, _ := run(t, redirectTo(netip.AddrPort{}), "race", p.String(), "20000")
	require.Equal(t, "0\n", out)
}

func TestTools(t *testing.T) {
	need(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "HTTP/1.0 200 OK\r\n\r\nproxy")
	for _, c := range [][]string{
		{"curl", "-s", "--noproxy", "*", "--http0.9", "http://" + test4},
		{"python3", "-c", "import socket; print(socket.create_connection(('203.0.113.10', 80)).recv(99).decode())"},
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			t.Log(err)
			continue
		}
		var out bytes.Buffer
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Stdout = &out
		_, err := Run(t.Context(), Options{ALE: redirectTo(p)}, cmd)
		require.NoError(t, err)
		require.Contains(t, out.String(), "proxy", c[0])
	}
}

func BenchmarkConnect(b *testing.B) {
	need(b)
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	report := func(b *testing.B, out string) {
		ns, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		require.NoError(b, err)
		b.ReportMetric(ns/float64(b.N), "ns/connect")
	}
	b.Run("plain", func(b *testing.B) { report(b, native(b, "bench", l.Addr().String(), strconv.Itoa(b.N))) })
	b.Run("seccomp", func(b *testing.B) {
		out, _ := run(b, permit, "bench", l.Addr().String(), strconv.Itoa(b.N))
		report(b, out)
	})
}
