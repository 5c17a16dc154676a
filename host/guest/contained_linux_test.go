package guest_test

import (
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/guest"
)

// contained are all that a guest can do wrong, by the port at which bad.wat does
// it, and what the reason says.
var contained = []struct {
	name string
	port uint16
	why  string
}{
	{"an endless loop", 10, "fuel"},
	{"a recursion", 11, "call depth"},
	{"a trap", 12, "unreachable"},
	{"memory that grows", 13, "fuel"},
	{"a giant fill", 15, "fuel"},
	{"fills", 14, "fuel"},
	{"copies", 16, "fuel"},
	{"a table that grows", 17, "fuel"},
	{"calls of the host", 18, "too many calls"},
	{"a malformed answer", 20, "response does not"},
	{"an answer out of bounds", 26, "outside"},
}

// onCPU is how long f has the processor: what other programs of the machine do is
// left out.
func onCPU(tb testing.TB, f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Timespec
	require.NoError(tb, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before))
	f()
	require.NoError(tb, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after))
	return time.Duration(after.Nano() - before.Nano())
}

// defaultSlices is the budget of a decision.
const defaultSlices = 256

// suffer is how long a guest that does wrong had the processor each time, sorted.
func suffer(b *testing.B, m *guest.Module, port uint16, why string, more func() bool) (took []time.Duration) {
	for more() {
		var err error
		took = append(took, onCPU(b, func() { _, err = ask(m, call(port)) }))
		require.ErrorContains(b, err, why) // The trace has it from there.
	}
	slices.Sort(took)
	return took
}

// BenchmarkContained is how long a guest that does wrong is suffered beyond the
// budget of a decision. What a budget is in time is what one that is twice as large
// takes more; of what is no matter of the budget all is beyond it.
func BenchmarkContained(b *testing.B) {
	for _, c := range contained {
		b.Run(c.name, func(b *testing.B) {
			m := load(b, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1, FuelSlices: 2 * defaultSlices, MaxFailures: -1}))
			left := 30
			twice := suffer(b, m, c.port, c.why, func() bool { left--; return left >= 0 })
			m = load(b, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1, FuelSlices: defaultSlices, MaxFailures: -1}))
			took := suffer(b, m, c.port, c.why, b.Loop)
			stopped(b, took, max(0, twice[len(twice)/2]-took[len(took)/2]))
		})
	}
	b.Run("no spare is left", func(b *testing.B) {
		m := load(b, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1, MaxFailures: -1}))
		var took []time.Duration
		for b.Loop() {
			for range 3 { // more than there are
				_, err := ask(m, call(12))
				require.Error(b, err)
			}
			took = append(took, onCPU(b, func() {
				_, err := ask(m, call(1))
				require.NoError(b, err)
			}))
		}
		slices.Sort(took)
		stopped(b, took, 0)
	})
}

func stopped(b *testing.B, took []time.Duration, budget time.Duration) {
	p99 := took[len(took)*99/100]
	b.ReportMetric(float64(budget.Microseconds()), "budget-µs")
	b.ReportMetric(float64(max(0, took[len(took)/2]-budget).Microseconds()), "over-µs")
	b.ReportMetric(float64(max(0, p99-budget).Microseconds()), "over-p99-µs")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkStop is how long the collector waits for the world to stop while
// a guest does wrong: the worst of all collections, as the runtime has it.
func BenchmarkStop(b *testing.B) {
	b.Run("alone", stops)
	b.Run("beside a busy goroutine", func(b *testing.B) {
		defer busy()()
		stops(b)
	})
	for _, c := range contained {
		b.Run("beside "+c.name, func(b *testing.B) {
			defer misbehave(b, c.port, guest.Unpaced)()
			stops(b)
		})
	}
}

const stopping = "/sched/pauses/stopping/gc:seconds"

func stops(b *testing.B) {
	before := histogram()
	for b.Loop() {
		runtime.GC()
	}
	now := histogram()
	all := uint64(0)
	for k := range now.Counts {
		now.Counts[k] -= before.Counts[k]
		all += now.Counts[k]
	}
	b.ReportMetric(quantile(now, all/2)*1e6, "p50-stop-µs")
	b.ReportMetric(quantile(now, all-all/100-1)*1e6, "p99-stop-µs")
}

// quantile is the lower end of the bucket that holds the n-th value.
func quantile(h *metrics.Float64Histogram, n uint64) float64 {
	for k, c := range h.Counts {
		if n < c {
			return max(h.Buckets[k], 0)
		}
		n -= c
	}
	return 0
}

// histogram is a copy: metrics.Read may use the memory of its sample again.
func histogram() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: stopping}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: slices.Clone(h.Counts), Buckets: h.Buckets}
}

// addressSpace is that of the process, in bytes.
func addressSpace(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(b))[0])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}

// The memory of an instance that is thrown away goes back to the system.
func TestMemoryIsGivenBack(t *testing.T) {
	m := load(t, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1, MaxFailures: -1}))
	fail := func(n int) {
		for range n {
			_, err := ask(m, call(12))
			require.Error(t, err)
		}
	}
	fail(10)
	before := addressSpace(t)
	fail(200)
	require.Less(t, addressSpace(t)-before, 100*16<<20, "of 200 times 16 MiB")
}
