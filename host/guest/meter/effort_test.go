package meter_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/guest/meter"
)

func local(op byte, l int) []byte { return uleb([]byte{op}, l) }

func get(l int) []byte { return local(0x20, l) }
func set(l int) []byte { return local(0x21, l) }

func each(n int, f func(k int) []byte) (out []byte) {
	for k := range n {
		out = append(out, f(k)...)
	}
	return out
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// use reads so many locals.
func use(locals int) []byte { return each(locals, func(k int) []byte { return append(get(k), 0x1a) }) }

// turn gives every local but the last what the next one had.
func turn(locals int) []byte {
	return each(locals-1, func(k int) []byte { return append(get(k+1), set(k)...) })
}

// hostile is a module of a function of type 0, from nothing to nothing; types 1 and 2 are
// from so many values and from none to so many. Function 0 returns what it takes.
func hostile(values, globals, locals int, code []byte) []byte {
	many := append(uleb(nil, values), repeat(values, 0x7f)...)
	parts := [][]byte{
		section(1, join([]byte{3, 0x60, 0, 0, 0x60}, many, many, []byte{0x60, 0}, many)...),
		section(3, 2, 1, 0),
		section(5, 1, 0, 1)}
	if globals > 0 {
		parts = append(parts, section(6, append(uleb(nil, globals), repeat(globals, 0x7f, 1, 0x41, 0, 0x0b)...)...))
	}
	same := append(append([]byte{0}, each(values, get)...), 0x0b)
	body := join(uleb([]byte{1}, locals), []byte{0x7f}, code, []byte{0x0b})
	return assemble(append(parts, section(7, 1, 1, 'f', 0, 1), section(10, join([]byte{2}, vec(nil, same), vec(nil, body))...))...)
}

var bombs = []struct {
	name         string
	small, large int
	refusal      string
	make         func(n int) []byte
}{
	{"branches one behind the other", 1000, 14000, " s, ", func(n int) []byte {
		return hostile(1, 0, 1, join([]byte{2, 0x40}, repeat(n, 0x20, 0, 0x0d, 0), []byte{0x0b}))
	}},
	{"blocks that end", 3000, 60000, " s, ", func(n int) []byte {
		return hostile(1, 0, 1, join(repeat(n, 2, 0x40), repeat(n, 0x0b)))
	}},
	{"locals where ways meet", 200, 20000, " s, ", func(n int) []byte {
		return hostile(1, 0, 201, join(each(n, func(k int) []byte { return join([]byte{2, 0x40, 0x20, 0, 0x0d, 0, 0x41, 1}, set(k%201), []byte{0x0b}) }), use(201)))
	}},
	{"locals where many ways meet", 1000, 20000, " s, ", func(n int) []byte {
		return hostile(1, 0, 101, join([]byte{2, 0x40}, each(n, func(k int) []byte { return join([]byte{0x20, 0, 0x0d, 0, 0x41, 1}, set(k%101)) }), []byte{0x0b}, use(101)))
	}},
	{"locals round a loop", 400, 2000, " s, ", func(n int) []byte {
		return hostile(1, 0, n, join([]byte{3, 0x40}, turn(n), []byte{0x20, 0, 0x0d, 0, 0x0b}, use(n)))
	}},
	{"loops in loops", 150, 4000, " s, ", func(n int) []byte {
		return hostile(1, 0, 20, join(repeat(n, 3, 0x40), turn(20), repeat(n, 0x20, 0, 0x0d, 0, 0x0b), use(20)))
	}},
	{"ifs in ifs", 100, 20000, " s, ", func(n int) []byte {
		return hostile(1, 0, 100, join(repeat(n, 0x20, 0, 4, 0x40), turn(100), repeat(n, 0x0b), use(100)))
	}},
	{"a table of branches to two blocks", 500, 200000, " s, ", func(n int) []byte {
		return hostile(1, 0, 100, join([]byte{2, 0x40, 2, 0x40, 0x20, 0, 0x0d, 0}, turn(100), []byte{0x20, 0, 0x0e}, uleb(nil, n), each(n, func(k int) []byte { return []byte{byte(k % 2)} }), []byte{0, 0x0b, 0x0b}, use(100)))
	}},
	{"a table of branches", 10000, 300000, " s, ", func(n int) []byte {
		return hostile(1, 0, 1, join([]byte{2, 0x40, 0x20, 0, 0x0e}, uleb(nil, n), repeat(n+1, 0), []byte{0x0b}))
	}},
	{"values over calls", 50, 3000, " MiB, ", func(n int) []byte {
		return hostile(300, 0, 0, join(repeat(300, 0x41, 1), repeat(n, 0x10, 0), repeat(300, 0x1a)))
	}},
	{"values over branches", 100, 4000, " MiB, ", func(n int) []byte {
		return hostile(200, 0, 1, join(repeat(200, 0x41, 1), []byte{2, 1}, repeat(n, 0x20, 0, 0x0d, 0), []byte{0x0b}, repeat(200, 0x1a)))
	}},
	{"values that live across blocks", 300, 5000, " MiB, ", func(n int) []byte {
		return hostile(1, 0, 1, join(repeat(n, 0x20, 0, 0x45), repeat(n, 2, 0x40, 0x20, 0, 0x0d, 0, 0x0b), repeat(n-1, 0x6a), set(0)))
	}},
	{"globals that calls can change", 200, 6000, " MiB, ", func(n int) []byte {
		return hostile(0, 500, 0, repeat(n, 0x10, 0))
	}},
	{"accesses that are known", 1000, 4000, " MiB, ", func(n int) []byte {
		return hostile(1, 0, 1, join([]byte{2, 0x40}, repeat(n, 0x20, 0, 0x28, 2, 0, 0x22, 0, 0x0d, 0), []byte{0x0b}))
	}},
	{"one instruction that is many", 2000, 60000, " MiB, ", func(n int) []byte {
		return hostile(1, 0, 1, join(get(0), repeat(n, 0xb2, 0xa8), set(0)))
	}},
	{"fills of the memory", 200, 6000, " s, ", func(n int) []byte {
		return hostile(1, 0, 1, repeat(n, 0x20, 0, 0x20, 0, 0x20, 0, 0xfc, 11, 0))
	}},
}

// Each would take the compiler minutes, or gigabytes.
func TestWhatTakesTheCompilerTooLongIsRefused(t *testing.T) {
	for _, b := range bombs {
		t.Run(b.name, func(t *testing.T) {
			_, err := meter.Rewrite(b.make(b.large))
			var effort *meter.EffortError
			require.ErrorAs(t, err, &effort)
			require.ErrorContains(t, err, "function 1 can take the compiler ")
			require.ErrorContains(t, err, b.refusal)
			_, err = meter.Rewrite(b.make(b.small))
			require.NoError(t, err)
		})
	}
}

// What functions are written out to is bounded for all of them together, since a module is
// validated at one go.
func TestWhatAllFunctionsTakeIsBounded(t *testing.T) {
	b := newBuilder()
	b.locals = 49000
	for range 100 {
		b.function(opNop)
	}
	params := join([]byte{1, 0x60}, uleb(nil, 49000), repeat(49000, 0x7f), []byte{0})
	for _, wasm := range [][]byte{b.bytes(), assemble(section(1, params...), section(3, append([]byte{100}, make([]byte, 100)...)...), section(10, append([]byte{100}, repeat(100, 2, 0, 0x0b)...)...))} {
		_, err := meter.Strip(wasm)
		require.EqualError(t, err, "the functions have more than 4194304 locals")
	}

	// Each function calls another that returns the thousand values it takes.
	const calls, most = 400, 1 << 28 / (400 * 2000)
	for n, want := range map[int]string{most * 9 / 10: "", most + 1: "the functions move more than 268435456 values"} {
		types := join([]byte{2, 0x60, 0, 0, 0x60}, uleb(nil, 1000), repeat(1000, 0x7f), uleb(nil, 1000), repeat(1000, 0x7f))
		code := vec(uleb(nil, n+1), join([]byte{0}, each(1000, get), []byte{0x0b}))
		body := vec(nil, join([]byte{0}, repeat(1000, 0x41, 1), repeat(calls, 0x10, 0), repeat(1000, 0x1a), []byte{0x0b}))
		_, err := meter.Rewrite(assemble(section(1, types...), section(3, join(uleb(nil, n+1), []byte{1}, repeat(n, 0))...), section(10, append(code, repeat(n, body...)...)...)))
		if want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}

// TestEffortIsThatOfTheCompiler compares with what the compiler takes: in memory, and in
// time as a multiple of that for code without any of this. Both with a wide margin.
func TestEffortIsThatOfTheCompiler(t *testing.T) {
	fast := slowness(t, hostile(1, 0, 1, join(get(0), repeat(40000, 0x45), set(0))))
	for _, b := range bombs {
		t.Run(b.name, func(t *testing.T) {
			slow := slowness(t, b.make(b.small))
			t.Logf("%.1f times as slow as plain code", slow/fast)
			require.Less(t, slow, 10*fast)
		})
	}
}

// slowness is how long a module takes to compile, as a multiple of what was said. What it
// allocates is no more than was said.
func slowness(t *testing.T, wasm []byte) float64 {
	seconds, space, err := meter.Effort(wasm, false)
	require.NoError(t, err)
	out, err := meter.Rewrite(wasm)
	require.NoError(t, err)
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	_, err = rt.CompileModule(t.Context(), out)
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	const megabyte = 1 << 20
	require.Less(t, float64(after.TotalAlloc-before.TotalAlloc), 2*space*meter.MaxSpace+megabyte)
	const perByte = 2e-9 // of plain code, about
	return took.Seconds() / (seconds*meter.MaxSeconds + space*meter.MaxSpace*perByte)
}

// Modules that compilers make stay far below, also when their blocks are counted.
func TestModulesThatCompilersMakeAreFarFromRefused(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	var files []string
	for _, folder := range []string{"plugins", "sdk", "examples", "host"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, _ os.DirEntry, err error) error {
			if filepath.Ext(path) == ".wasm" && filepath.Base(filepath.Dir(path)) != "testdata" {
				files = append(files, path)
			}
			return err
		}))
	}
	require.Greater(t, len(files), 20)
	for _, file := range files {
		wasm, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, covered := range []bool{false, true} {
			seconds, space, err := meter.Effort(wasm, covered)
			require.NoError(t, err, file)
			t.Log(fmt.Sprintf("%5.1f%% of the time, %5.1f%% of the memory", 100*seconds, 100*space), file, covered)
			most := 0.25
			if covered { // Calls load its counters again.
				most = 0.9
			}
			require.Less(t, max(seconds, space), most, file)
		}
	}
}
