package enforcetest

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// Abused is a net whose connections an Account redirects. Nobody has it.
var Abused = netip.MustParsePrefix("198.51.100.0/24")

// AbuseSize is how much abuse there is: a little, or a day's worth of it with CALLOUTD_ABUSE=full.
func AbuseSize() (processes, connections int) {
	if os.Getenv("CALLOUTD_ABUSE") == "full" {
		return 200, 100_000
	}
	return 10, 1000
}

// Abuse keeps that many processes running, each of which calls Begun and connects as
// fast as it can. Each is killed at some time after it has begun, and another one takes
// its place, until the standard input ends. It panics when one does not begin.
func Abuse(processes int, hammer func() *exec.Cmd) {
	enough := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(enough)
	}()
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	one := func() {
		c := hammer()
		begun, err := c.StdoutPipe()
		must(err)
		must(c.Start())
		_, err = io.ReadFull(begun, make([]byte, 1))
		must(err)
		select {
		case <-time.After(time.Duration(rand.IntN(20*processes)) * time.Millisecond): // Else many do nothing but begin.
		case <-enough:
		}
		must(c.Process.Kill())
		_ = c.Wait()
	}
	var slots sync.WaitGroup
	for range processes {
		slots.Go(func() {
			for {
				one()
				select {
				case <-enough:
					return
				default:
				}
			}
		})
	}
	slots.Wait()
}

// Begun says to Abuse that the process runs.
func Begun() { _, _ = os.Stdout.Write([]byte("b")) }

// An Account counts what is decided about connections and what becomes of it. Those to
// Abused are redirected to a proxy, which hangs up.
type Account struct {
	ALE    *ale.Enforcer
	Policy *fwpm.Policy

	redirects, permits, established, failed, blocked atomic.Int64
	goal                                             atomic.Pointer[goal]
}

type goal struct {
	redirects int64
	reached   func()
}

// NewAccount has more filters than that of Abused, if there are any.
func NewAccount(t testing.TB, more ...fwpm.Filter) *Account {
	a := &Account{}
	own := uint32(os.Getpid())
	engine := host.New(host.Options{OnDecision: func(in *fwps.Incoming, d *fwps.Decision) {
		switch {
		case in.ProcessID == own || in.Inbound:
		case in.Layer == fwpm.LayerALEAuthConnectV4 && d.Action == fwp.ActionPermit && Abused.Contains(in.OriginalDestination.Addr()):
			a.permits.Add(1)
		case in.Layer == fwpm.LayerALEFlowEstablishedV4 && Abused.Contains(in.OriginalDestination.Addr()):
			a.established.Add(1)
		}
	}})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	proxy := l.Addr().(*net.TCPAddr).AddrPort()
	_, _, err = engine.RegisterCallout("c", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, own
		return nil
	}))
	require.NoError(t, err)
	a.Policy = &fwpm.Policy{
		Callouts: []fwpm.Callout{{ID: "c", Name: "c"}},
		Filters: append([]fwpm.Filter{{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "c", Conditions: []fwpm.Condition{
			{Field: fwpm.ConditionIPRemoteAddress, Value: fwp.Mask(Abused)},
			{Field: fwpm.ConditionIPProtocol, Value: fwp.U8(fwps.ProtocolTCP)}}}}, more...),
	}
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error { *p = *a.Policy.Clone(); return nil }))
	a.ALE = ale.New(ale.Options{Classifier: engine, Store: memstore.New(0), OnRedirect: func(ev ale.RedirectEvent) {
		if ev.Err != nil {
			a.failed.Add(1)
		} else if n, g := a.redirects.Add(1), a.goal.Load(); g != nil && n == g.redirects {
			g.reached()
		}
	}})
	listening := a.ALE.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: proxy, ProcessID: own})
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
		listening.Close()
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// One that was reset in the backlog, whose port is another one's by now, takes
			// the record of that, which then waits for it in vain, and nobody must wait for that.
			serving.Go(func() {
				if f, err := listening.Accept(context.Background(), c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()); err == nil {
					f.Close()
				}
				c.Close()
			})
		}
	})
	return a
}

// After has do called when so many more connections were redirected.
func (a *Account) After(connections int, do func()) {
	a.goal.Store(&goal{a.redirects.Load() + int64(connections), do})
}

// OnBlocked is for a backend that tells of them.
func (a *Account) OnBlocked(enforce.Denial) { a.blocked.Add(1) }

// Balance requires that each decision has an outcome, and that so many were blocked.
func (a *Account) Balance(t testing.TB, blocked int64) {
	t.Helper()
	require.Equal(t, a.redirects.Load(), a.permits.Load(), "each redirect was authorized")
	require.Equal(t, a.permits.Load(), a.established.Load()+a.failed.Load(), "each decision has an outcome")
	require.Equal(t, blocked, a.blocked.Load())
	t.Logf("%d decisions, %d of them of killed programs; %d records left", a.permits.Load(), a.failed.Load(), a.ALE.LiveHops())
}

// Holdings are what this process has.
type Holdings struct {
	descriptors []string
	goroutines  int
	heap        uint64
}

// Held is what this process has now.
func Held(t testing.TB) Holdings {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Holdings{descriptors(t), runtime.NumGoroutine(), m.HeapAlloc}
}

// NoMore requires that this process comes to have no descriptors or goroutines that it
// did not have before, and a heap that grew by no more than that many bytes. Of what it
// had, something may be gone: a connection that the proxy had not closed yet.
func (h Holdings) NoMore(t testing.TB, heap int64) {
	t.Helper()
	grew := int64(Held(t).heap) - int64(h.heap)
	var more []string
	// require.Eventually would have goroutines of its own.
	for until := time.Now().Add(time.Minute); time.Now().Before(until); runtime.Gosched() {
		more = slices.DeleteFunc(descriptors(t), func(d string) bool { return slices.Contains(h.descriptors, d) })
		if len(more) == 0 && runtime.NumGoroutine() <= h.goroutines {
			break
		}
	}
	require.Empty(t, more)
	require.LessOrEqual(t, runtime.NumGoroutine(), h.goroutines)
	require.Less(t, grew, heap)
}

func descriptors(t testing.TB) (open []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+" "+to)
		}
	}
	return open
}
