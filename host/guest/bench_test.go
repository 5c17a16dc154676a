package guest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/sample"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/abi"
)

// proxyConfig makes of the plugin proxy-redirect the decision of the benchmarks,
// but for the program.
func proxyConfig() []byte {
	var list []string
	for _, p := range sample.Networks() {
		list = append(list, p.String())
	}
	b, _ := json.Marshal(map[string]any{"rules": []any{map[string]any{
		"destinations": list, "ports": []string{"443"}, "proxy": sample.Proxy.String(), "proxy_pid": sample.PID}}})
	return b
}

// splits are the examples of the SDKs.
var splits = []struct{ name, file string }{
	{"c", "../../sdk/c/example/split.wasm"},
	{"rust", "../../sdk/rust/examples/split.wasm"},
	{"zig", "../../sdk/zig/example/split.wasm"},
	{"wat", "../../sdk/wat/split.wasm"},
	{"assemblyscript", "../../sdk/assemblyscript/example/split.wasm"},
}

const proxyRedirect = "../../plugins/proxy-redirect/proxy-redirect.wasm"

func loadFile(t testing.TB, file string, o guest.ModuleOptions) *guest.Module {
	t.Helper()
	wasm, err := os.ReadFile(file)
	require.NoError(t, err)
	m, err := newRuntime(t).Load(t.Context(), file, wasm, o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close(context.Background())) })
	return m
}

// What is compared decides the same, to the byte of the record.
func TestSplitsDecideLikeTheClosure(t *testing.T) {
	for _, s := range splits {
		for name, o := range map[string]guest.ModuleOptions{"guarded": {Config: sample.Config(), Slots: 1}, "unguarded": guest.Unguarded(guest.ModuleOptions{Config: sample.Config(), Slots: 1})} {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				m, closure := loadFile(t, s.file, o), sample.Native()
				for _, c := range sample.Calls() {
					want := new(fwps.Verdict)
					require.NoError(t, closure.Classify(t.Context(), c, want))
					got, err := ask(m, c)
					require.NoError(t, err)
					if want.Context == nil {
						want.Context = got.Context
					}
					assert.Equal(t, want, got, c.In.Remote.String())
				}
			})
		}
	}
}

func TestAllocations(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 2})
	for port := uint16(1); port <= 7; port++ {
		c := call(port)
		c.Hop = &redirect.Hop{Record: []byte("record"), Context: []byte("context")}
		assert.Zero(t, allocations(t, m, c), fmt.Sprint(port))
	}
}

// allocations of one decision.
func allocations(t *testing.T, m *guest.Module, c *fwps.Call) float64 {
	v := new(fwps.Verdict)
	return testing.AllocsPerRun(500, func() {
		v.Reset()
		if err := m.Classify(context.Background(), c, v); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkClassify compares a decision with what it cannot be faster than, a
// closure in Go, and with the same guest unmetered: all in turn, round after
// round, so that other work on the machine hits them alike. The least counts.
func BenchmarkClassify(b *testing.B) {
	b.Run("empty", emptyCall)
	for _, s := range splits {
		b.Run(s.name, func(b *testing.B) { compare(b, s.file, sample.Config(), sample.Redirected, batch) })
	}
	b.Run("go", func(b *testing.B) { compare(b, proxyRedirect, proxyConfig(), 1, batch/8) })
	b.Run("javascript", func(b *testing.B) {
		compare(b, javascript, asConfig(b, javascript, sample.Config()), sample.Redirected, batch/128)
	})
}

// compare measures n decisions in each round, each round on another instance: one of
// some hundred is a tenth to a third slower as long as it lives.
func compare(b *testing.B, file string, config []byte, redirects, n int) {
	o := guest.ModuleOptions{Config: config, Slots: 4}
	plain, guarded := loadFile(b, file, guest.Unguarded(o)), loadFile(b, file, o)
	decides(b, plain, redirects)
	decides(b, guarded, redirects)
	native := sample.Native()
	var least [3]float64
	for b.Loop() {
		for k, f := range []fwps.Callout{native, plain, guarded} {
			least[k] = lesser(least[k], round(b, f, n))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(least[0], "native-ns")
	b.ReportMetric(least[1], "unguarded-ns")
	b.ReportMetric(least[2], "guarded-ns")
	b.ReportMetric(least[2]/least[0], "x-native")
	b.ReportMetric(100*(least[2]/least[1]-1), "guard-%")
}

// batch is how many decisions are measured at once, half a millisecond of most.
const batch = 4096

// round makes some decisions and returns the nanoseconds of one.
func round(b *testing.B, f fwps.Callout, decisions int) float64 {
	calls, v := sample.Calls(), new(fwps.Verdict)
	at := time.Now()
	for n := range decisions {
		v.Reset()
		if err := f.Classify(context.Background(), calls[n%len(calls)], v); err != nil {
			b.Error(err)
		}
	}
	return float64(time.Since(at).Nanoseconds()) / float64(decisions)
}

func lesser(old, now float64) float64 {
	if old == 0 {
		return now
	}
	return min(old, now)
}

// decides makes sure that a guest does what is measured: split redirects four
// connections, proxy-redirect with the same networks the one that split does not.
func decides(b *testing.B, m *guest.Module, redirects int) {
	v, n := new(fwps.Verdict), 0
	for _, c := range sample.Calls() {
		v.Reset()
		require.NoError(b, m.Classify(b.Context(), c, v))
		if v.Redirect {
			n++
		}
	}
	require.Equal(b, redirects, n)
}

// BenchmarkParallel is the C guest on one goroutine and on as many as there are
// processors, in turn: x-one is how many times more they decide.
func BenchmarkParallel(b *testing.B) {
	m := loadFile(b, splits[0].file, guest.ModuleOptions{Config: sample.Config()})
	n := runtime.GOMAXPROCS(0)
	var one, all float64
	for b.Loop() {
		one, all = lesser(one, round(b, m, batch)), lesser(all, together(b, m, n))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one, "one-ns")
	b.ReportMetric(all, "all-ns")
	b.ReportMetric(one/all, "x-one")
}

// together makes a batch of decisions on each of n goroutines at once, and returns
// the nanoseconds of one. They begin when all are there.
func together(b *testing.B, f fwps.Callout, n int) float64 {
	var ready atomic.Int32
	var wg sync.WaitGroup
	at := make([]time.Time, n)
	for k := range n {
		wg.Go(func() {
			for ready.Add(1); int(ready.Load()) < n; {
			}
			at[k] = time.Now()
			round(b, f, batch)
		})
	}
	wg.Wait()
	return float64(time.Since(slices.MinFunc(at, time.Time.Compare)).Nanoseconds()) / float64(n*batch)
}

// emptyCall is what entering and leaving a guest costs.
func emptyCall(b *testing.B) {
	rt := wazero.NewRuntime(b.Context())
	defer rt.Close(context.Background())
	mod, err := rt.Instantiate(b.Context(), wasm(b, "good"))
	require.NoError(b, err)
	f, stack := mod.ExportedFunction(abi.ExportMarker), make([]uint64, 1)
	call := fwps.CalloutFunc(func(context.Context, *fwps.Call, *fwps.Verdict) error {
		return f.CallWithStack(context.Background(), stack)
	})
	var least float64
	for b.Loop() {
		least = lesser(least, round(b, call, batch))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(least, "empty-ns")
}
