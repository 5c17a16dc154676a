//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/race"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func init() {
	// bench: for each number read, make so many connections and print the median
	// time of a connect.
	programs["bench"] = func(args []string) {
		runtime.LockOSThread()
		to := must(args[0])
		sa := sockaddrOf(to)
		for in := bufio.NewReader(os.Stdin); ; {
			var n int
			if _, err := fmt.Fscanln(in, &n); err != nil {
				return
			}
			took := make([]time.Duration, n)
			for i := range took {
				fd := newSocket(int(domainOf(to.Addr())), unix.SOCK_STREAM)
				t := time.Now()
				e := sysConnect(fd, sa)
				took[i] = time.Since(t)
				if e != 0 {
					panic(e)
				}
				abort(fd)
			}
			slices.Sort(took)
			say(took[n/2].Nanoseconds())
		}
	}
	// sink: accept and close, in a process of its own.
	programs["sink"] = func([]string) {
		runtime.LockOSThread()
		l := listenRaw()
		_, addr, _ := getName(l)
		say(addr)
		for {
			if fd, _, err := unix.Accept(l); err == nil {
				unix.Close(fd)
			}
		}
	}
}

func startSink(b testing.TB) netip.AddrPort {
	sink := helper("sink")
	out, err := sink.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, sink.Start())
	b.Cleanup(func() { _ = sink.Process.Kill(); _ = sink.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return must(strings.TrimSpace(line))
}

// A bencher is a program that waits to be told how many connections to make.
type bencher struct {
	name   string
	in     io.Writer
	out    *bufio.Reader
	p50    []float64
	cpu    []float64 // of this process, for each connect, in nanoseconds
	allocs []float64 // likewise
}

func startBencher(b testing.TB, name string, to netip.AddrPort, run func(*exec.Cmd)) *bencher {
	cmd := helper("bench", to.String())
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	r, w, err := os.Pipe()
	require.NoError(b, err)
	cmd.Stdout = w
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(cmd)
		w.Close()
	}()
	b.Cleanup(func() { in.Close(); <-done; r.Close() })
	return &bencher{name: name, in: in, out: bufio.NewReader(r)}
}

func (c *bencher) round(b testing.TB, n int) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime()
	fmt.Fprintln(c.in, n)
	var ns float64
	_, err := fmt.Fscanln(c.out, &ns)
	require.NoError(b, err)
	c.cpu = append(c.cpu, (cpuTime()-cpu)/float64(n))
	runtime.ReadMemStats(&after)
	c.p50 = append(c.p50, ns)
	c.allocs = append(c.allocs, float64(after.Mallocs-before.Mallocs)/float64(n))
}

// cpuTime is what this process has used, in nanoseconds.
func cpuTime() float64 {
	var r unix.Rusage
	check(unix.Getrusage(unix.RUSAGE_SELF, &r))
	return float64(r.Utime.Nano() + r.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// enforcer returns a real one whose policy is made of filters and one callout.
func enforcer(t testing.TB, c fwps.Callout, filters ...fwpm.Filter) *ale.Enforcer {
	e := host.New(host.Options{})
	if c != nil {
		_, _, err := e.RegisterCallout("test", c)
		require.NoError(t, err)
	}
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		if c != nil {
			p.Callouts = []fwpm.Callout{{ID: "test", Name: "test"}}
		}
		p.Filters = filters
		return nil
	}))
	return ale.New(ale.Options{Classifier: e, Store: memstore.New(0)})
}

// redirecting returns an enforcer that redirects every IPv4 connection.
func redirecting(t testing.TB, proxy netip.AddrPort) *ale.Enforcer {
	return enforcer(t, fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, uint32(os.Getpid())
		v.Context = append(v.Context, "context"...)
		return nil
	}), fwpm.Filter{ID: 1, Name: "redirect all", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "test"})
}

// proxied returns an enforcer that redirects every IPv4 connection to a listener,
// which takes the proxy's part: it accepts through the ALE, and closes.
func proxied(t testing.TB, accepted func(*ale.Flow)) (e *ale.Enforcer, proxy netip.AddrPort) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	proxy = l.Addr().(*net.TCPAddr).AddrPort()
	e = redirecting(t, proxy)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f, err := e.Accept(context.Background(), fwps.Incoming{Protocol: fwps.ProtocolTCP,
				Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()})
			if err == nil {
				accepted(f)
				f.Close()
			}
			c.Close()
		}
	}()
	return e, proxy
}

// A connect that is permitted allocates nothing; of one that is redirected its
// record remains, two objects.
func TestConnectAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("sync.Pool forgets at random under the race detector: CI runs it without")
	}
	need(t)
	under := func(e *ale.Enforcer) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			if _, err := Run(context.Background(), Options{ALE: e, Logf: t.Logf}, cmd); err != nil {
				t.Error(err)
			}
		}
	}
	c := startBencher(t, "permit", startSink(t), under(permit))
	for range 5 {
		c.round(t, 500)
	}
	require.Less(t, median(c.allocs), 0.5)

	r := startBencher(t, "redirect", must(test4), under(redirecting(t, startSink(t)))) // a proxy in a process of its own
	for range 5 {
		r.round(t, 500)
	}
	require.Less(t, median(r.allocs), 2.5)
}

// floor is the least that a supervisor has to do for one tree of one thread:
// fetch the address and the socket, connect it, and answer. It decides nothing.
func floor(b *testing.B) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		opts := Options{Logf: b.Logf}
		ls, started := make(chan listener, 1), make(chan struct{})
		doomed.Go(func() {
			if err := startTrapped(cmd, &opts, func(l listener) { ls <- l }); err != nil {
				b.Error(err)
			}
			close(started)
			if err := cmd.Wait(); err != nil {
				b.Error(err)
			}
		})
		l := <-ls
		defer unix.Close(l.fd)
		<-started
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			b.Error(err)
		}
		defer unix.Close(pidfd)
		var n notif
		var sa [sockaddr4Len]byte
		for l.recv(&n) == nil {
			e := readMemory(n.TID, n.Data.Args[1], sa[:])
			fd, _ := unix.PidfdGetfd(pidfd, int(n.Data.Args[0]), 0)
			if e == 0 && l.valid(&n.ID) {
				e = sysConnect(fd, sa[:])
			}
			unix.Close(fd)
			l.send(&response{ID: n.ID, Error: -int32(e)})
		}
	}
}

// Median connect() of a program, in rounds that take turns: by itself, with
// every connect permitted, and with every connect redirected.
func BenchmarkConnect(b *testing.B) {
	need(b)
	direct := startSink(b)
	redirect, proxy := proxied(b, func(*ale.Flow) {})
	under := func(a *ale.Enforcer) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			if _, err := Run(context.Background(), Options{ALE: a, Logf: b.Logf}, cmd); err != nil {
				b.Error(err)
			}
		}
	}
	plain := func(cmd *exec.Cmd) {
		if err := cmd.Run(); err != nil {
			b.Error(err)
		}
	}
	all := []*bencher{
		startBencher(b, "plain", direct, plain),
		startBencher(b, "floor", direct, floor(b)),
		startBencher(b, "permit", direct, under(enforcer(b, nil))),
		startBencher(b, "plain-to-proxy", proxy, plain),
		startBencher(b, "redirect", must(test4), under(redirect)),
	}
	const perRound = 500
	for b.Loop() {
		for _, c := range all {
			c.round(b, perRound)
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, c := range all {
		b.ReportMetric(median(c.p50)/1000, "µs/"+c.name)
		b.ReportMetric(median(c.p50)/median(all[0].p50), "x/"+c.name)
		b.ReportMetric(median(c.allocs), "allocs/"+c.name)
		b.ReportMetric(median(c.cpu)/1000, "cpu-µs/"+c.name)
	}
}
