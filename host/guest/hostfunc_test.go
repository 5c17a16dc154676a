package guest_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/sdk/abi"
)

// full are the options of a module that can be granted everything.
func full() guest.ModuleOptions {
	return guest.ModuleOptions{
		Slots: 1, MaxFailures: -1,
		Sets:   [][]netip.Prefix{{netip.MustParsePrefix("192.0.2.0/24")}},
		Tables: [][]guest.Row{{{Prefix: netip.MustParsePrefix("192.0.0.0/16"), Value: 1}, {Prefix: netip.MustParsePrefix("192.0.2.0/24"), Value: 2}}},
		Names: func(_ *fwps.Incoming, a netip.Addr, buf []byte) []byte {
			if a != netip.MustParseAddr("192.0.2.1") {
				return buf
			}
			return append(buf, "a.test\x00b.test\x00"...)
		},
	}
}

// tell asks the guest of host.wat to call a host function.
func tell(t *testing.T, m *guest.Module, port uint16) (result int64, read []byte) {
	t.Helper()
	v, err := ask(m, call(port))
	require.NoError(t, err)
	require.Len(t, v.Record, 8)
	return int64(binary.LittleEndian.Uint64(v.Record)), v.Context
}

func TestHostFunctions(t *testing.T) {
	var log lines
	o := full()
	o.Logf = log.printf
	m := load(t, "host", o)
	for _, c := range []struct {
		name string
		port uint16
		want int64
	}{
		{"all is granted", 2, 0xff},
		{"log", 3, 0},
		{"random", 4, 0},
		{"kv_get of nothing", 7, abi.ErrNotFound},
		{"kv_set", 6, 0},
		{"kv_get", 7, 5},
		{"kv_get into too little", 25, abi.ErrTooLarge},
		{"kv_del", 8, 0},
		{"kv_del of nothing", 8, abi.ErrNotFound},
		{"metric_add", 9, 0},
		{"cidr_match", 10, 1},
		{"cidr_match of no set", 11, abi.ErrNotFound},
		{"table_lookup takes the longest prefix", 12, 2},
		{"dns_names", 13, 14},
		{"dns_names into too little", 28, abi.ErrTooLarge},
		{"log outside the memory", 20, abi.ErrPointer},
		{"random past the end", 21, abi.ErrPointer},
		{"random of too much", 22, abi.ErrTooLarge},
		{"kv_set of too large a value", 23, abi.ErrTooLarge},
		{"kv_set of no key", 24, abi.ErrTooLarge},
		{"kv_get of a key outside", 26, abi.ErrPointer},
		{"metric_add of too long a name", 27, abi.ErrTooLarge},
	} {
		got, _ := tell(t, m, c.port)
		assert.Equal(t, c.want, got, c.name)
	}
	assert.Contains(t, log.String(), `callout "host": info: a line`)
	assert.Equal(t, map[string]int64{"key": 2}, m.Stats().Metrics)
	now, _ := tell(t, m, 5)
	assert.WithinDuration(t, time.Now(), time.Unix(0, now), time.Minute)
	_, names := tell(t, m, 13)
	assert.Equal(t, "a.test\x00b.test\x00", string(names[:14]))
	_, a := tell(t, m, 4)
	_, b := tell(t, m, 4)
	assert.NotEqual(t, a, b, "random bytes")
}

// Whoever hears of what a guest logs prints it as it is.
func TestALogMovesNoCursor(t *testing.T) {
	for text, want := range map[string]string{"a line\n": "a line", "\x1b[2J\nX\n": "\ufffd[2J\ufffdX", "\xffline\r\n": "\ufffdline"} {
		var log lines
		o := full()
		o.Logf = log.printf
		text += "       "[len(text):]
		m, err := newRuntime(t).Load(t.Context(), "host", bytes.Replace(wasm(t, "host"), []byte("a line\n"), []byte(text), 1), o)
		require.NoError(t, err)
		tell(t, m, 3)
		require.NoError(t, m.Close(t.Context()))
		require.Equal(t, `callout "host": info: `+want, strings.TrimSpace(log.String()))
	}
}

// Nor does a figure, whose name calloutd status --metrics prints as it is.
func TestAFigureHasAPrintableName(t *testing.T) {
	for name, want := range map[string]int64{"k y": 0, "a\nb": abi.ErrTooLarge, "\x1bcx": abi.ErrTooLarge, "\x00ab": abi.ErrTooLarge, "a\xff\xfe": abi.ErrTooLarge, "a\u0085": abi.ErrTooLarge} {
		m, err := newRuntime(t).Load(t.Context(), "host", bytes.Replace(wasm(t, "host"), []byte("keyvalue"), []byte(name+"value"), 1), full())
		require.NoError(t, err)
		got, _ := tell(t, m, 9)
		require.Equal(t, want, got, "%q", name)
		require.NoError(t, m.Close(t.Context()))
	}
}

// The figures of versions that are gone leave no place for those of the next. What it counts as well
// goes on.
func TestFiguresOfVersionsThatAreGoneMakeRoom(t *testing.T) {
	counts := func(m *guest.Module) map[string]int64 {
		got, _ := tell(t, m, 9)
		require.Zero(t, got)
		return m.Stats().Metrics
	}
	m := load(t, "host", full())
	require.EqualValues(t, 2, counts(m)["key"])
	guest.FillMetrics(m)
	require.Len(t, m.Stats().Metrics, 64)
	for n, name := range []string{"one", "two", "key"} {
		version := bytes.Replace(wasm(t, "host"), []byte("keyvalue"), []byte(name+"value"), 1)
		require.NoError(t, m.Reload(t.Context(), wasm(t, "host"), nil))
		require.EqualValues(t, 4+2*n, counts(m)["key"])
		require.NoError(t, m.Reload(t.Context(), version, nil))
		require.Contains(t, counts(m), name)
		require.Len(t, m.Stats().Metrics, 64)
	}
}

// What a module logs at each connection does not fill a disk, at any level, and what is left
// out is counted.
func TestLogIsBounded(t *testing.T) {
	const calls = 200
	var lines enforcetest.Lines
	o := full()
	o.Logf = lines.Logf
	m := load(t, "host", o)
	for range calls {
		tell(t, m, 3)
	}
	require.NoError(t, m.Close(t.Context()))
	lines.Bounded(t, 1, calls)
}

// A value outlives the version of the callout that wrote it, and its instances
// share it; what the self-test writes is nowhere.
func TestStoreOutlivesAReload(t *testing.T) {
	m := load(t, "host", full())
	tell(t, m, 6)
	require.NoError(t, m.Reload(t.Context(), wasm(t, "host"), nil))
	n, value := tell(t, m, 7)
	assert.EqualValues(t, 5, n)
	assert.Equal(t, "value", string(value[:5]))
}

func TestTooManyHostCalls(t *testing.T) {
	m := load(t, "host", full())
	_, err := ask(m, call(29))
	require.ErrorContains(t, err, "too many calls to the host")
}

// A call that costs the host more than others counts as more of them.
func TestHostCallsAreChargedByWhatTheyTake(t *testing.T) {
	for _, c := range []struct {
		name string
		port uint16
		each int64 // calls that one counts as
	}{
		{"a line of 1,024 bytes and more", 30, 1 + 8},
		{"a random byte", 31, 1 + 1},
		{"a value", 32, 1 + 4},
		{"64 subscriptions", 33, 1 + 4},
		{"64 vectors and 1,024 bytes", 34, 1 + 4 + 8},
	} {
		m := load(t, "host", full())
		_, err := ask(m, call(c.port))
		require.ErrorContains(t, err, "too many calls to the host", c.name)
		assert.Equal(t, 10_000/(1+c.each)+min(1, 10_000%(1+c.each)), m.Stats().Metrics["key"], c.name) // which is counted by a call, too
	}
}

func TestCapabilities(t *testing.T) {
	none := guest.ModuleOptions{Slots: 1}
	t.Run("optional ones are left out", func(t *testing.T) {
		m := load(t, "host", none)
		granted, _ := tell(t, m, 2)
		assert.EqualValues(t, abi.CapLog|abi.CapRandom|abi.CapWall|abi.CapKV|abi.CapMetric, granted)
		for _, port := range []uint16{10, 12, 13} {
			got, _ := tell(t, m, port)
			assert.EqualValues(t, abi.ErrDenied, got, port)
		}
	})
	t.Run("withheld ones are denied", func(t *testing.T) {
		o := full()
		o.Withhold = abi.CapKV | abi.CapRandom
		m := load(t, "host", o)
		for _, port := range []uint16{4, 6, 7, 8} {
			got, _ := tell(t, m, port)
			assert.EqualValues(t, abi.ErrDenied, got, port)
		}
	})
	for _, c := range []struct {
		name, module, want string
		withhold           uint32
	}{
		{"a required one that is withheld", "host", "requires the capability log", abi.CapLog},
		{"required ones that are unknown", "requires", "requires the capability kv, bit 20", abi.CapKV},
		{"an import without asking", "unasked", "imports functions of the capability log, which callout_caps does not ask for", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := none
			o.Withhold = c.withhold
			_, err := newRuntime(t).Load(t.Context(), c.module, wasm(t, c.module), o)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestHostFunctionsDoNotAllocate(t *testing.T) {
	m := load(t, "host", full())
	tell(t, m, 6)
	for _, port := range []uint16{4, 5, 7, 9, 10, 12, 13} {
		assert.Zero(t, allocations(t, m, call(port)), fmt.Sprint(port))
	}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.b, format+"\n", args...)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
