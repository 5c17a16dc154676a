package meter_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// start runs the metered form of a module.
func start(t testing.TB, wasm []byte) api.Module {
	t.Helper()
	out, err := meter.Rewrite(wasm)
	require.NoError(t, err)
	rt := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { rt.Close(context.Background()) })
	mod, err := rt.Instantiate(t.Context(), out)
	require.NoError(t, err)
	return mod
}

func budget(m api.Module) api.MutableGlobal {
	return m.ExportedGlobal(meter.BudgetGlobal).(api.MutableGlobal)
}

// spent calls an export with so many slices and reports whether they were spent.
func spent(t testing.TB, m api.Module, export string, slices int, args ...uint64) bool {
	t.Helper()
	budget(m).Set(uint64(slices))
	_, err := m.ExportedFunction(export).Call(t.Context(), args...)
	over := int32(budget(m).Get()) < 0
	require.Equal(t, over || tooDeep(m), err != nil, "%s: %v", export, err)
	return over
}

func tooDeep(m api.Module) bool { return int32(m.ExportedGlobal(meter.DepthGlobal).Get()) < 0 }

func TestEverythingEndlessIsStopped(t *testing.T) {
	wasm, err := os.ReadFile("testdata/endless.wasm")
	require.NoError(t, err)
	for name, f := range start(t, wasm).ExportedFunctionDefinitions() {
		t.Run(name, func(t *testing.T) {
			m := start(t, wasm) // What nested too deep is of no use any more.
			args := make([]uint64, len(f.ParamTypes()))
			for i := range args {
				args[i] = 40
			}
			require.True(t, spent(t, m, name, 20, args...) || tooDeep(m))
		})
	}
}

// TestTrees calls functions that call the one before twice: none recurses, none
// loops, and the last would run for hours.
func TestTrees(t *testing.T) {
	for _, width := range []int{2, 3, 50} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			b := newBuilder()
			b.function(opNop)
			for f := range 60 {
				b.function(repeat(width, 0x10, byte(f))...)
			}
			b.export("f", 60)
			require.True(t, spent(t, start(t, b.bytes()), "f", 100))
		})
	}
}

const opNop = 0x01

// TestStraightCode has no loop and no call: what is long pays on its way, and
// leaves for the collector in time.
func TestStraightCode(t *testing.T) {
	b := newBuilder()
	b.function(repeat(1<<17, 0x41, 1, 0x1a)...) // i32.const 1, drop
	b.export("f", 0)
	m := start(t, b.bytes())
	require.False(t, spent(t, m, "f", 2<<17/meter.SliceFuel+2))
	require.True(t, spent(t, m, "f", 2<<17/meter.SliceFuel-2))
}

// TestBulk has no loop: bulk operations pay for their size, whether the code says
// it or only the stack.
func TestBulk(t *testing.T) {
	for name, c := range map[string]struct {
		times int
		size  []byte
	}{
		"65535 bytes":                     {100, []byte{0x41, 0xff, 0xff, 0x03}},
		"4096 bytes":                      {1600, []byte{0x41, 0x80, 0x20}},
		"4096 bytes, known while it runs": {1600, []byte{0x41, 0x80, 0x20, opNop}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder()
			fill := append(append([]byte{0x41, 0, 0x41, 1}, c.size...), 0xfc, 11, 0)
			b.function(repeat(c.times, fill...)...)
			b.export("f", 0)
			m := start(t, b.bytes())
			require.False(t, spent(t, m, "f", 7)) // The bytes / 16 / meter.SliceFuel are 6.25.
			require.True(t, spent(t, m, "f", 5))
		})
	}
}

// TestGrow pays for pages, whether or not there are so many.
func TestGrow(t *testing.T) {
	b := newBuilder()
	b.function(0x41, 20, 0x40, 0, 0x1a) // memory.grow of 20 pages
	b.function(0x41, 0x7f, 0x40, 0, 0x1a)
	b.export("f", 0)
	b.export("all", 1)
	m := start(t, b.bytes())
	require.False(t, spent(t, m, "f", 21))
	require.True(t, spent(t, m, "f", 19))
	require.True(t, spent(t, m, "all", 4000), "paid as 4095 pages")
}

// TestChains calls deep without recursion.
func TestChains(t *testing.T) {
	b := newBuilder()
	b.function(opNop)
	for f := range 100 {
		b.function(append(repeat(200, opNop), 0x10, byte(f))...)
	}
	b.export("f", 100)
	require.False(t, spent(t, start(t, b.bytes()), "f", 1), "20000 units are less than a slice")
}

// TestManyLoops has a function of nothing but small loops: it does not become many times
// as long.
func TestManyLoops(t *testing.T) {
	wasm := one(repeat(100_000, 0x03, 0x40, 0x41, 0, 0x0d, 0, 0x0b)...) // loop: br_if never
	out, err := meter.Rewrite(wasm)
	require.NoError(t, err)
	require.Less(t, len(out), 6*len(wasm))
}

// TestLocals pays for clearing them.
func TestLocals(t *testing.T) {
	b := newBuilder()
	b.locals = 40000
	b.function(opNop)
	b.locals = 0
	b.function(0x03, 0x40, 0x10, 0, 0x0c, 0, 0x0b) // loop: call 0
	b.export("f", 1)
	require.True(t, spent(t, start(t, b.bytes()), "f", 50))
}

// stop is where refill lets a collection in: memory.grow of nothing, dropped.
var stop = []byte{0x41, 0, 0x40, 0, 0x1a}

// TestPaymentsDoNotSlipPastAStop: a guest is let out at every fourth slice, however
// many slices its payments are of at once and wherever its budget began. Every stop
// calls the host here, in place of what it does.
func TestPaymentsDoNotSlipPastAStop(t *testing.T) {
	const slices, every = 4096, 4
	for _, pages := range []int{1, 2, 3, 4, 6, 8, 63} { // A page costs a slice, whether or not there is one.
		b := newBuilder()
		b.hosted = true
		b.function(0x03, 0x40, 0x41, byte(pages), 0x40, 0, 0x1a, 0x0c, 0, 0x0b) // loop: memory.grow
		b.export("f", 1)
		out, err := meter.Rewrite(b.bytes())
		require.NoError(t, err)
		require.Equal(t, 1, bytes.Count(out, stop))
		out = bytes.Replace(out, stop, []byte{0x10, 0, opNop, opNop, opNop}, 1) // call 0
		stops := 0
		rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithMemoryLimitPages(1))
		defer rt.Close(context.Background())
		_, err = rt.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() { stops++ }).Export("f").Instantiate(t.Context())
		require.NoError(t, err)
		m, err := rt.Instantiate(t.Context(), out)
		require.NoError(t, err)
		for phase := range every {
			stops = 0
			require.True(t, spent(t, m, "f", slices+phase))
			require.InDelta(t, slices/max(every, pages), stops, 2, "payments of %d slices, a budget of %d", pages, slices+phase)
		}
	}
}

// TestATypeIsTheSameHoweverItIsWritten calls itself by a type that is its own, whose
// length is written in two bytes.
func TestATypeIsTheSameHoweverItIsWritten(t *testing.T) {
	m := start(t, assemble(
		section(1, 2, 0x60, 0, 0, 0x60, 0x80, 0, 0),
		section(3, 1, 0),
		section(4, 1, 0x70, 0, 1),
		section(7, 1, 1, 'f', 0, 0),
		section(9, 1, 0, 0x41, 0, 0x0b, 1, 0),            // The table holds function 0.
		section(10, 1, 7, 0, 0x41, 0, 0x11, 1, 0, 0x0b))) // i32.const 0, call_indirect of type 1
	spent(t, m, "f", 20)
	require.True(t, tooDeep(m))
}

// TestMoves pays for values that go along: a block may have as many as it likes, and no
// instruction of its own for each of them.
func TestMoves(t *testing.T) {
	const values, times = 700, 100
	many := append(uleb(nil, values), repeat(values, 0x7f)...)
	push := repeat(values, 0x41, 1)
	for name, functions := range map[string][][]byte{ // The last is called; one of type 1 returns the values.
		"round a loop":       {repeated(times, bytes.Join([][]byte{push, {0x03, 2, 0x41, 7}}, nil), 0x0d, 0, 0x1a, 0x0b, 0x0f)}, // loop of type 2: one value more, br_if, drop
		"out of blocks":      {append(append(push, repeat(times, 0x02, 2, 0x41, 7, 0x41, 1, 0x0d, 0, 0x1a, 0x0b)...), 0x0f)},
		"out of a br_table":  {append(append(push, repeat(times, 0x02, 2, 0x41, 7, 0x41, 0, 0x0e, 1, 0, 0, 0x0b)...), 0x0f)},
		"out of functions":   append(wrapped(push, times), append([]byte{0x10, times - 1}, 0x0f)),
		"an if without else": {append(append(push, repeat(times, 0x41, 0, 0x04, 2, 0x0b)...), 0x0f)},
	} {
		t.Run(name, func(t *testing.T) {
			types := bytes.Join([][]byte{{3, 0x60, 0, 0, 0x60, 0}, many, {0x60}, many, many}, nil)
			last := len(functions) - 1
			var code []byte
			for _, f := range functions {
				code = vec(code, append([]byte{1, 1, 0x7f}, append(f, 0x0b)...)) // A local counts.
			}
			m := start(t, assemble(section(1, types...),
				section(3, append(append(uleb(nil, last+1), repeat(last, 1)...), 0)...),
				section(7, uleb([]byte{1, 1, 'f', 0}, last)...),
				section(10, append(uleb(nil, last+1), code...)...)))
			require.True(t, spent(t, m, "f", values*times/meter.SliceFuel))
		})
	}
}

// repeated is a loop that runs so often: it begins with head, and what goes round is a
// branch and the rest.
func repeated(times int, head []byte, rest ...byte) []byte {
	count := []byte{0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41} // local.get, i32.const 1, i32.add, local.tee, i32.const
	return append(append(append(append(head, count...), byte(times&0x7f|0x80), byte(times>>7)), 0x48), rest...)
}

// wrapped are functions that return what the one before returns, the first what it pushes.
func wrapped(push []byte, times int) [][]byte {
	out := [][]byte{push}
	for f := range times - 1 {
		out = append(out, uleb([]byte{0x10}, f))
	}
	return out
}
