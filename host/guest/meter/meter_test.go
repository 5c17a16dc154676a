package meter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/guest/meter"
)

func samples(t testing.TB) [][]byte {
	files, err := filepath.Glob("../testdata/*.wasm")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var out [][]byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		out = append(out, b)
	}
	return out
}

// one builds a module of one page of memory and one function without
// parameters, results and locals.
func one(code ...byte) []byte {
	m := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01")
	m = append(m, 10, byte(len(code)+4), 1, byte(len(code)+2), 0)
	return append(append(m, code...), 0x0b)
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		wasm []byte
		want string
	}{
		{"unknown opcode", one(0xff), "opcode 0xff"},
		{"unknown prefixed opcode", one(0xfc, 18), "0xfc 18"},
		{"reserved vector opcode", one(0xfd, 0x9a, 0x01), "0xfd 154"},
		{"atomics", one(0xfe, 0), "opcode 0xfe"},
		{"tail call", one(0x12, 0), "opcode 0x12"},
		{"code after the end", one(0x0b), "after the end"},
		{"open block", one(0x02, 0x40), "does not end"},
		{"no memory", []byte("\x00asm\x01\x00\x00\x00"), "no memory"},
		{"section order", []byte("\x00asm\x01\x00\x00\x00\x03\x01\x00\x01\x01\x00"), "out of order"},
		{"huge vector", []byte("\x00asm\x01\x00\x00\x00\x01\x05\xff\xff\xff\xff\x0f"), "past the end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := meter.Rewrite(c.wasm)
			var bad *meter.Error
			require.ErrorAs(t, err, &bad)
			assert.ErrorContains(t, err, c.want)
			assert.LessOrEqual(t, bad.Offset, len(c.wasm))
		})
	}
}

// TestStraightLine has no loop: bulk operations pay where there is no probe.
func TestStraightLine(t *testing.T) {
	fill := []byte{0x41, 0, 0x41, 1, 0x41, 0xff, 0xff, 0x03, 0xfc, 11, 0} // 65535 bytes
	code := []byte{0}
	for range 100 {
		code = append(code, fill...)
	}
	code = append(code, 0x0b)
	m := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x05\x01\x01f\x00\x00")
	lebs := func(n int) []byte { return []byte{byte(n)&0x7f | 0x80, byte(n >> 7)} }
	m = append(append(append(m, 10), lebs(len(code)+3)...), 1)
	m = append(append(m, lebs(len(code))...), code...)
	out, err := meter.Rewrite(m)
	require.NoError(t, err)
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	mod, err := rt.Instantiate(t.Context(), out)
	require.NoError(t, err)
	for slices, fine := range map[uint64]bool{30: true, 20: false} { // 100 * 1023 / 4096 = 25
		set := mod.ExportedGlobal(meter.BudgetGlobal).(interface{ Set(uint64) })
		set.Set(slices)
		_, err = mod.ExportedFunction("f").Call(t.Context())
		assert.Equal(t, fine, err == nil, "%d slices: %v", slices, err)
	}
}

func FuzzRewrite(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
	}
	f.Add(one(0x03, 0x40, 0x0b))
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := meter.Rewrite(b)
		if err != nil {
			var bad *meter.Error
			if !errors.As(err, &bad) || bad.Offset < 0 || bad.Offset > len(b) {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		core, err := meter.Strip(b)
		if err != nil {
			t.Fatalf("rewritten but not stripped: %v", err)
		}
		orig, err := rt.CompileModule(ctx, core)
		if err != nil {
			return
		}
		defer orig.Close(ctx)
		metered, err := rt.CompileModule(ctx, out)
		if err != nil {
			t.Fatalf("the rewritten module does not compile: %v", err)
		}
		metered.Close(ctx)
	})
}
