package meter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

// one builds a module of one function.
func one(code ...byte) []byte {
	b := newBuilder()
	b.function(code...)
	return b.bytes()
}

func exporting(name string, f int) []byte {
	b := newBuilder()
	b.function()
	b.export(name, f)
	return b.bytes()
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
		{"a global that is added", one(0x23, 0, 0x1a), "global 0 does not exist"},
		{"a global far away", one(0x23, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x1a), "global 4294967295 does not exist"},
		{"an index over 32 bits", one(0x23, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x1a), "over 32 bits"},
		{"a function that is added", one(0x10, 1), "function 1 does not exist"},
		{"a reference to it", one(0xd2, 1, 0x1a), "function 1 does not exist"},
		{"a type that is added", one(0x41, 0, 0x11, 1, 0), "type 1 does not exist"},
		{"a block of a type that is added", one(0x02, 1, 0x0b), "type 1 does not exist"},
		{"a branch out of the function", one(0x0c, 1), "branch to depth 1 of 1"},
		{"an export of the budget's name", exporting(meter.BudgetGlobal, 0), "is reserved"},
		{"an export of a function that is added", exporting("f", 1), "function 1 does not exist"},
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

func TestAnEntryIsOfAnExportedFunction(t *testing.T) {
	b := newBuilder()
	b.function()
	b.export("f", 0)
	_, err := meter.Rewrite(b.bytes(), "g")
	var bad *meter.Error
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "no function g is exported")
}

// What a guest reads from fixed addresses, at the end of its memory and beyond,
// before it grows and after, and in a loop.
func TestStaticDataIsWhereItWas(t *testing.T) {
	load := func(at ...byte) []byte { return append(append([]byte{0x41, 0, 0x28, 0}, at...), 0x1a) } // i32.const 0, i32.load, drop
	last, beyond := load(0xfc, 0xff, 3), load(0xfd, 0xff, 3)
	grow := []byte{0x41, 1, 0x40, 0, 0x1a}
	loop := append(append([]byte{0x03, 0x40}, last...), 0x41, 0, 0x0d, 0, 0x0b)
	for name, c := range map[string]struct {
		code  [][]byte
		traps bool
	}{
		"the last bytes":          {[][]byte{last, last}, false},
		"a byte beyond":           {[][]byte{last, beyond}, true},
		"a byte beyond, grown":    {[][]byte{last, grow, beyond}, false},
		"grown too late":          {[][]byte{last, beyond, grow}, true},
		"a byte beyond in a loop": {[][]byte{last, loop, beyond}, true},
		"after a loop":            {[][]byte{loop, last}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder()
			b.function(bytes.Join(c.code, nil)...)
			b.export("f", 0)
			for _, rewrite := range []func([]byte) ([]byte, error){metered, meter.Unmetered, meter.Strip} {
				out, err := rewrite(b.bytes())
				require.NoError(t, err)
				rt := wazero.NewRuntime(t.Context())
				defer rt.Close(context.Background())
				mod, err := rt.Instantiate(t.Context(), out)
				require.NoError(t, err)
				_, err = mod.ExportedFunction("f").Call(t.Context())
				if c.traps {
					require.ErrorContains(t, err, "out of bounds memory access")
				} else {
					require.NoError(t, err)
				}
			}
		})
	}
}

// What a cache holds is found by Version, so it must change with the output.
func TestVersionChangesWithTheOutput(t *testing.T) {
	h := sha256.New()
	for _, f := range []struct {
		file    string
		entries []string
	}{{"testdata/endless.wasm", nil}, {"../testdata/good.wasm", []string{"callout_classify"}}} {
		wasm, err := os.ReadFile(f.file)
		require.NoError(t, err)
		out, err := meter.Rewrite(wasm, f.entries...)
		require.NoError(t, err)
		h.Write(out)
	}
	static := newBuilder()
	static.function(repeat(2, 0x41, 0, 0x28, 2, 8, 0x1a)...) // i32.load of the address 8
	out, err := meter.Rewrite(static.bytes())
	require.NoError(t, err)
	h.Write(out)
	out, err = meter.Rewrite(withData("\x02\x00\x41\x00\x0b\x01a\x00\x41\x04\x0b\x01b"))
	require.NoError(t, err)
	h.Write(out)
	assert.Equal(t, map[int]string{16: "4ee20d026682467b"}, map[int]string{meter.Version: fmt.Sprintf("%x", h.Sum(nil)[:8])},
		"raise meter.Version and note the new hash here")
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
		summary, err2 := meter.Inspect(b)
		if (err == nil) != (err2 == nil) || err == nil && summary.Inserted.Bytes != len(out) {
			t.Fatalf("Rewrite makes %d bytes and the error %v, Inspect says %v and %v", len(out), err, summary, err2)
		}
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

func BenchmarkRewrite(b *testing.B) {
	wasm, err := os.ReadFile("../../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(b, err)
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := meter.Rewrite(wasm); err != nil {
			b.Fatal(err)
		}
	}
}
