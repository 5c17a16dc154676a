package enforcetest

import (
	"context"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
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

// An Account counts what is decided about connections and what becomes of it. Those to
// Abused are redirected to a proxy, which hangs up.
type Account struct {
	ALE    *ale.Enforcer
	Policy *fwpm.Policy

	redirects, permits, blocks, established, failed, accepted, told atomic.Int64
	goal                                                            atomic.Pointer[goal]
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
		case in.Layer == fwpm.LayerALEAuthConnectV4 && d.Action == fwp.ActionBlock:
			a.blocks.Add(1)
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
					if f.Redirected {
						a.accepted.Add(1)
					}
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
func (a *Account) OnBlocked(enforce.Denial) { a.told.Add(1) }

// Balance requires that each decision has an outcome that was told, and that no records
// are left but those of connections that the proxy did not accept: what is reset in the
// backlog is nobody's, and its record waits for two minutes.
func (a *Account) Balance(t testing.TB) {
	t.Helper()
	require.Equal(t, a.redirects.Load(), a.permits.Load(), "each redirect was authorized")
	require.Equal(t, a.permits.Load(), a.established.Load()+a.failed.Load(), "each decision has an outcome")
	require.Equal(t, a.blocks.Load(), a.told.Load(), "each block is told")
	left := func() int64 { return int64(a.ALE.LiveHops()) }
	require.Eventually(t, func() bool { return left() <= a.established.Load()-a.accepted.Load() }, time.Minute, time.Millisecond, "records are left of connections that were accepted")
	t.Logf("%d redirects, %d of them of killed programs; %d blocks; %d records left", a.permits.Load(), a.failed.Load(), a.blocks.Load(), left())
}

// Holdings are what this process has.
type Holdings struct {
	descriptors []string
	goroutines  int
	heap        uint64

	percent int   // of garbage that is collected at
	limit   int64 // of memory
}

// enough is as much memory as a process may hold at once, in bytes.
const enough = 512 << 20

// Held is what this process has now. From now on until NoMore it takes a lot of memory until
// garbage is collected: what is forgotten would be closed then as if somebody had closed it.
func Held(t testing.TB) Holdings {
	t.Helper()
	runtime.GC()
	h := Holdings{heap: heap(), percent: debug.SetGCPercent(-1), limit: debug.SetMemoryLimit(enough)}
	t.Cleanup(h.restore)
	h.descriptors, h.goroutines = descriptors(t), runtime.NumGoroutine()
	return h
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (h Holdings) restore() {
	debug.SetGCPercent(h.percent)
	debug.SetMemoryLimit(h.limit)
}

// NoMore requires that this process comes to have no descriptors or goroutines that it
// did not have before, and a heap that grew by no more than that many bytes. Of what it
// had, something may be gone: a connection that the proxy had not closed yet.
func (h Holdings) NoMore(t testing.TB, most int64) {
	t.Helper()
	debug.SetMemoryLimit(math.MaxInt64) // The waiting itself takes some.
	var more []string
	// require.Eventually would have goroutines of its own.
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		more = slices.DeleteFunc(descriptors(t), func(d string) bool { return slices.Contains(h.descriptors, d) })
		if len(more) == 0 && runtime.NumGoroutine() <= h.goroutines {
			break
		}
	}
	require.Empty(t, more)
	require.LessOrEqual(t, runtime.NumGoroutine(), h.goroutines)
	h.restore()
	runtime.GC()
	require.Less(t, int64(heap())-int64(h.heap), most)
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
