package guest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/sdk/abi"
)

var kinds = []error{guest.ErrInvalid, guest.ErrTooLarge, guest.ErrCompileTime, guest.ErrABI, guest.ErrCapability,
	guest.ErrConfig, guest.ErrSelfTest, guest.ErrClosed}

// kindOf is what a program finds an error to be, which is one thing.
func kindOf(t *testing.T, err error) (kind error) {
	require.Error(t, err)
	for _, k := range kinds {
		if errors.Is(err, k) {
			require.NoError(t, kind, "%v is of two kinds", err)
			kind = k
		}
	}
	return kind
}

// Load, Reload and Inspect say the same of a module.
func TestWhyAModuleIsUnfit(t *testing.T) {
	rt := newRuntime(t)
	live := load(t, "good", guest.ModuleOptions{Slots: 1})
	component := []byte("\x00asm\x0d\x00\x01\x00")
	for _, c := range []struct {
		kind error
		wasm []byte
	}{
		{guest.ErrInvalid, nil},
		{guest.ErrInvalid, component},
		{guest.ErrInvalid, wasm(t, "good")[:100]},
		{guest.ErrInvalid, wasm(t, "reserved")},
		{guest.ErrTooLarge, make([]byte, guest.MaxModuleSize+1)},
		{guest.ErrTooLarge, wasm(t, "bigmemory")},
		{guest.ErrTooLarge, bomb(1<<14+1, nil)},
		{guest.ErrABI, wasm(t, "command")},
		{guest.ErrABI, wasm(t, "empty")},
		{guest.ErrABI, wasm(t, "imports")},
		{guest.ErrABI, wasm(t, "types")},
		{guest.ErrCapability, wasm(t, "unasked")},
		{guest.ErrCapability, wasm(t, "requires")},
		{guest.ErrSelfTest, wasm(t, "startloop")},
		{guest.ErrSelfTest, wasm(t, "outside")},
		{guest.ErrSelfTest, wasm(t, "trapping")},
	} {
		_, err := rt.Load(t.Context(), "unfit", c.wasm, guest.ModuleOptions{Slots: 1})
		require.Equal(t, c.kind, kindOf(t, err), "%v", err)
		require.Equal(t, c.kind, kindOf(t, live.Reload(t.Context(), c.wasm, nil)))
		r, err := guest.Inspect(t.Context(), c.wasm, nil, guest.Options{CacheDir: cache})
		if err == nil {
			err = r.Refused
		}
		require.Equal(t, c.kind, kindOf(t, err), "%v", err)
	}
}

func TestWhyAFitModuleIsRefused(t *testing.T) {
	rt := newRuntime(t)
	for _, c := range []struct {
		kind   error
		module string
		o      guest.ModuleOptions
	}{
		{guest.ErrCapability, "host", guest.ModuleOptions{Withhold: abi.CapLog}},
		{guest.ErrConfig, "good", guest.ModuleOptions{Config: []byte("!")}},
		{guest.ErrConfig, "bad", guest.ModuleOptions{Config: []byte("x")}},
		{nil, "good", guest.ModuleOptions{Slots: -1}},
	} {
		_, err := rt.Load(t.Context(), "refused", wasm(t, c.module), c.o)
		require.Equal(t, c.kind, kindOf(t, err), "%v", err)
	}
	_, err := rt.Load(t.Context(), "refused", wasm(t, "good"), guest.ModuleOptions{FuelSlices: 1<<24 + 1})
	require.ErrorContains(t, err, "module option FuelSlices is 16777217: expected 0 to 16777216")

	slow, err := guest.NewRuntime(t.Context(), guest.Options{CompileTimeout: time.Nanosecond})
	require.NoError(t, err)
	defer slow.Close(context.Background())
	_, err = slow.Load(t.Context(), "slow", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.Equal(t, guest.ErrCompileTime, kindOf(t, err))

	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	require.NoError(t, m.Close(t.Context()))
	_, err = ask(m, call(1))
	require.Equal(t, guest.ErrClosed, kindOf(t, err))
	require.Equal(t, guest.ErrClosed, kindOf(t, m.Reload(t.Context(), wasm(t, "good"), nil)))
}

// Neither when it is compiled, nor when all that takes time is in the cache.
func TestWhoGaveUpGetsNoModule(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	gone := errors.New("the operator left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	cold, err := guest.NewRuntime(t.Context(), guest.Options{})
	require.NoError(t, err)
	defer cold.Close(context.Background())
	for _, rt := range []*guest.Runtime{newRuntime(t), cold} {
		_, err := rt.Load(ctx, "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
		require.ErrorIs(t, err, gone)
		require.NoError(t, kindOf(t, err))
	}
	_, err = guest.Inspect(ctx, wasm(t, "good"), nil, guest.Options{CacheDir: cache})
	require.ErrorIs(t, err, gone)
	require.ErrorIs(t, m.Reload(ctx, wasm(t, "good"), nil), gone)
	require.EqualValues(t, 1, m.Stats().Generation)
	_, err = ask(m, call(1))
	require.NoError(t, err)
}

// What a module imports is named as far as somebody reads it.
func TestManyImportsAreNotAllNamed(t *testing.T) {
	rt, err := guest.NewRuntime(t.Context(), guest.Options{})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	vec := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	imports := binary.AppendUvarint(nil, 1000)
	for n := range 1000 {
		imports = append(append(append(imports, vec([]byte("env"))...), vec(fmt.Appendf(nil, "%d%s", n, strings.Repeat("x", 1000)))...), 0, 0)
	}
	m := append([]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02"), vec(imports)...)
	_, err = rt.Load(t.Context(), "m", m, guest.ModuleOptions{})
	require.ErrorIs(t, err, guest.ErrABI)
	require.ErrorContains(t, err, "env.\"19xxx")
	require.ErrorContains(t, err, "... (function), and 980 more")
	require.Less(t, len(err.Error()), 5000)
}
