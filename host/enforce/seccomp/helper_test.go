//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// The test binary is its own traced program: the variable names which one. The
// programs stand beside the tests that run them.
const programEnv = "CALLOUTD_TEST_PROGRAM"

var programs = map[string]func(args []string){}

func init() {
	if os.Getenv(programEnv) != "" {
		runtime.LockOSThread()                       // main stays on the leading thread, and nothing else gets there.
		runtime.GOMAXPROCS(max(4, runtime.NumCPU())) // Its threads race with each other, whatever the tests have.
	}
}

func TestMain(m *testing.M) {
	if p := os.Getenv(programEnv); p != "" {
		programs[p](os.Args[1:])
		os.Exit(0)
	}
	enforcetest.Client()
	goleak.VerifyTestMain(m)
}

func helper(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), programEnv+"="+program, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// need skips where the kernel cannot, and only there.
func need(t testing.TB, more ...string) {
	cs := enforce.Probe()
	err := enforce.Missing(cs, enforce.CommandRun)
	for _, c := range cs {
		for _, m := range more {
			if c.Name == m && !c.Supported {
				err = fmt.Errorf("%s: %s", c.Name, c.Detail)
			}
		}
	}
	enforcetest.Lack(t, err)
}

func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		enforcetest.Lack(t, fmt.Errorf("needs root"))
	}
}

// runTime is long enough for every program here on one processor that others use, too.
const runTime = 5 * time.Minute

// supervise runs cmd and returns what it printed.
func supervise(t testing.TB, opts Options, cmd *exec.Cmd) (string, *os.ProcessState) {
	t.Helper()
	need(t)
	var out bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if opts.Logf == nil {
		opts.Logf = t.Logf
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), runTime, fmt.Errorf("%v has not ended in %v", cmd.Args, runTime))
	defer cancel()
	st, err := Run(ctx, opts, cmd)
	require.NoError(t, err)
	return out.String(), st
}

func run(t testing.TB, a *ale.Enforcer, program string, args ...string) string {
	t.Helper()
	out, _ := supervise(t, Options{ALE: a}, helper(program, args...))
	return out
}

func native(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := helper(program, args...).Output()
	require.NoError(t, err)
	return string(out)
}

// A policy answers each connection with where it goes; the zero AddrPort blocks.
type policy func(in fwps.Incoming) netip.AddrPort

func (p policy) Classify(_ context.Context, in *fwps.Incoming, d *fwps.Decision) {
	d.Reset(in)
	if !in.Layer.IsConnectRedirect() {
		return
	}
	switch to := p(*in); {
	case !to.IsValid():
		d.Action = fwp.ActionBlock
	case to != in.Remote:
		r := d.PushConnect()
		r.Remote, r.LocalRedirectTargetPID, r.LocalRedirectHandle = to, uint32(os.Getpid()), 1
	}
}

func (p policy) Generation(fwpm.LayerID) uint64 { return 0 }

func (p policy) ReauthorizeReason(fwpm.LayerID, uint64) fwp.ReauthorizeReason { return 0 }

func (p policy) TestsLocal(fwpm.LayerID) bool { return false }

func deciding(p policy) *ale.Enforcer {
	return ale.New(ale.Options{Classifier: p, Store: memstore.New(0), BlockAtRedirect: true})
}

var (
	permit = deciding(func(in fwps.Incoming) netip.AddrPort { return in.Remote })
	block  = redirectTo(netip.AddrPort{})
)

func redirectTo(to netip.AddrPort) *ale.Enforcer {
	return deciding(func(fwps.Incoming) netip.AddrPort { return to })
}

// only permits one destination and blocks the others.
func only(to netip.AddrPort) policy {
	return func(in fwps.Incoming) netip.AddrPort {
		if in.Remote == to {
			return to
		}
		return netip.AddrPort{}
	}
}

// Documentation addresses: never reached.
const (
	test4      = "203.0.113.10:80"
	test6      = "[2001:db8::10]:80"
	testMapped = "[::ffff:203.0.113.10]:80"
)

// serve greets whoever connects with a word, and closes when the other side does:
// who sent something that nobody read would be reset, perhaps before it has read.
func serve(t testing.TB, network, addr, word string) netip.AddrPort {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, addr)
	require.NoError(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_, _ = c.Write([]byte(word))
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// A listening is a socket that nobody is meant to reach.
type listening struct {
	fd   int
	addr netip.AddrPort
}

func listen(t testing.TB) listening {
	l := listening{fd: listenRaw()}
	_, l.addr, _ = getName(l.fd)
	t.Cleanup(func() { unix.Close(l.fd) })
	require.NoError(t, unix.SetNonblock(l.fd, true))
	return l
}

// vacant returns an address of loopback where nobody listens: its port is taken
// until the test ends.
func vacant(t testing.TB) netip.AddrPort {
	fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)) // for who wants to listen there
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	_, addr, _ := getName(fd)
	return addr
}

// reached accepts what has connected and says from where.
func (l listening) reached() (from []netip.AddrPort) {
	for {
		fd, sa, err := unix.Accept(l.fd)
		if err != nil {
			return from
		}
		unix.Close(fd)
		a := sa.(*unix.SockaddrInet4)
		from = append(from, netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)))
	}
}

// arrive waits until as many have connected, and no more. What is acknowledged may be in
// the kernel's queue yet, on a machine that is busy.
func (l listening) arrive(t testing.TB, want int) {
	got := len(l.reached())
	for end := time.Now().Add(time.Minute); got < want && time.Now().Before(end); time.Sleep(time.Millisecond) {
		got += len(l.reached())
	}
	require.Equal(t, want, got+len(l.reached()), "what arrives at %v", l.addr)
}

// copyBinary makes the test binary executable for everybody under another name.
func copyBinary(t testing.TB, name string) string {
	dir, err := os.MkdirTemp("", "calloutd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, b, 0o755))
	return path
}

// What the programs share.

func say(v ...any) { fmt.Println(v...) }

// name prints an errno in a way that says ok for success.
func name(e unix.Errno) string {
	switch e {
	case 0:
		return "ok"
	case unix.EOPNOTSUPP: // It has two names.
		return "EOPNOTSUPP"
	}
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return strconv.Itoa(int(e))
}

func must(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func newSocket(domain, kind int) int {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	check(err)
	return fd
}

func domainOf(a netip.Addr) int32 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddrOf(to netip.AddrPort) []byte {
	return putSockaddr(make([]byte, sockaddr6Len), domainOf(to.Addr()), to)
}

// listenRaw returns a socket that listens on loopback.
func listenRaw() int {
	l := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	check(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(unix.Listen(l, 1024))
	return l
}

func dial(to netip.AddrPort) (int, unix.Errno) {
	fd := newSocket(int(domainOf(to.Addr())), unix.SOCK_STREAM)
	return fd, sysConnect(fd, sockaddrOf(to))
}

// abort closes a connection without leaving it in TIME_WAIT.
func abort(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

func read(fd int) string {
	b := make([]byte, 64)
	n, _ := unix.Read(fd, b)
	return string(b[:max(n, 0)])
}

// connecting waits until a thread of this process sits in connect().
func connecting(tid int) { inSystemCall(tid, unix.SYS_CONNECT) }

func inSystemCall(tid, nr int) {
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		check(err)
		if strings.HasPrefix(string(b), strconv.Itoa(nr)+" ") {
			return
		}
	}
}

// nowhereToRead is memory that nobody may touch.
func nowhereToRead() []byte {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(err)
	return page
}
