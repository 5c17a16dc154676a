package meter_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// outcome is all that a run of a module shows.
type outcome struct {
	results []uint64
	causes  []string
	a, b    uint64
	memory  string
}

func run(t *rapid.T, rt wazero.Runtime, wasm []byte, types []int, entries bool) (api.Module, outcome) {
	mod, err := rt.InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig().WithName(""))
	require.NoError(t, err)
	var o outcome
	for k, ft := range types {
		args := []uint64{7, 1 << 40}[:params(ft)]
		call := func() ([]uint64, error) {
			return mod.ExportedFunction(strconv.Itoa(k)).Call(context.Background(), args...)
		}
		if entries {
			call = func() ([]uint64, error) { return enter(t, mod, strconv.Itoa(k), args) }
		}
		got, err := call()
		o.results = append(o.results, got...)
		o.causes = append(o.causes, cause(err))
	}
	o.a, o.b = mod.ExportedGlobal("a").Get(), mod.ExportedGlobal("b").Get()
	all, _ := mod.Memory().Read(0, mod.Memory().Size())
	o.memory = string(all)
	return mod, o
}

// names are those of the functions.
func names(types []int) (out []string) {
	for k := range types {
		out = append(out, strconv.Itoa(k))
	}
	return out
}

// enter calls a function by its entry.
func enter(t *rapid.T, mod api.Module, name string, args []uint64) ([]uint64, error) {
	const budget = 1 << 20
	deep := mod.ExportedGlobal(meter.DepthGlobal).Get()
	got, err := mod.ExportedFunction(meter.Entry(name)).Call(context.Background(), append([]uint64{budget}, args...)...)
	if err != nil {
		return nil, err
	}
	left := got[len(got)-1]
	require.Equal(t, mod.ExportedGlobal(meter.BudgetGlobal).Get(), left)
	require.Equal(t, deep, mod.ExportedGlobal(meter.DepthGlobal).Get(), "every way out gives the depth back")
	require.LessOrEqual(t, left, uint64(budget))
	return got[:len(got)-1], nil
}

func metered(wasm []byte) ([]byte, error) { return meter.Rewrite(wasm) }

// same checks that what a module does is not changed by any pass, and that its
// fuel pays for all that it runs.
func same(rt wazero.Runtime) func(*rapid.T) {
	return func(t *rapid.T) {
		wasm, types := module(t, true)
		plain, want := run(t, rt, wasm, types, false)
		defer plain.Close(context.Background())
		for name, rewrite := range map[string]func([]byte) ([]byte, error){
			"counted": meter.Counted, "unmetered": meter.Unmetered, "covered": covered,
			"entered": func(wasm []byte) ([]byte, error) { return meter.Rewrite(wasm, names(types)...) },
		} {
			out, err := rewrite(wasm)
			require.NoError(t, err)
			mod, got := run(t, rt, out, types, name == "entered")
			require.Equal(t, want, got, name)
			if name == "counted" {
				pays(t, mod, len(types))
			}
			require.NoError(t, mod.Close(context.Background()))
		}
	}
}

func covered(wasm []byte) ([]byte, error) {
	out, _, err := meter.Cover(wasm)
	return out, err
}

func pays(t *rapid.T, mod api.Module, calls int) {
	slices := meter.InitialSlices - int64(int32(mod.ExportedGlobal(meter.BudgetGlobal).Get()))
	paid := slices*meter.SliceFuel - int64(int32(mod.ExportedGlobal(meter.FuelGlobal).Get()))
	counted := int64(mod.ExportedGlobal(meter.CountGlobal).Get())
	require.LessOrEqual(t, counted, paid+int64(calls*meter.Slack), "ran more than it paid for")
}

func TestRandomModulesDoTheSame(t *testing.T) {
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	rapid.Check(t, same(rt))
}

// TestRandomModulesAreStopped has loops and recursion without bounds.
func TestRandomModulesAreStopped(t *testing.T) {
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	rapid.Check(t, func(t *rapid.T) {
		wasm, types := module(t, false)
		out, err := meter.Rewrite(wasm)
		require.NoError(t, err)
		mod, err := rt.InstantiateWithConfig(context.Background(), out, wazero.NewModuleConfig().WithName(""))
		require.NoError(t, err)
		for k, ft := range types {
			mod.ExportedGlobal(meter.BudgetGlobal).(api.MutableGlobal).Set(2)
			_, _ = mod.ExportedFunction(strconv.Itoa(k)).Call(context.Background(), []uint64{7, 1 << 40}[:params(ft)]...)
		}
		require.NoError(t, mod.Close(context.Background()))
	})
}

func FuzzSame(f *testing.F) {
	rt := wazero.NewRuntime(context.Background())
	f.Fuzz(rapid.MakeFuzz(same(rt)))
}
