package meter_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// The code of a function: if the first argument is 1, and a loop of two rounds.
var branches = []byte{
	0x41, 0x01, 0x04, 0x40, // i32.const 1, if
	0x01,                   // nop: runs
	0x05,                   // else
	0x01,                   // nop: does not run
	0x0b,                   // end
	0x41, 0x00, 0x04, 0x40, // i32.const 0, if
	0x00, // unreachable: does not run, and would trap
	0x0b,
	0x02, 0x40, // block
	0x0c, 0x00, // br 0
	0x01, // nop: nothing leads here
	0x0b,
	0x01, // nop: runs
}

// ran is which blocks of a module ran after a call of "f".
func ran(t *testing.T, wasm []byte, calls ...string) (blocks []meter.Block, hit []bool) {
	t.Helper()
	out, blocks, err := meter.Cover(wasm)
	require.NoError(t, err)
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	mod, err := rt.InstantiateWithConfig(t.Context(), out, wazero.NewModuleConfig().WithStartFunctions())
	require.NoError(t, err)
	for _, c := range calls {
		_, err = mod.ExportedFunction(c).Call(t.Context())
		require.NoError(t, err)
	}
	for i := range blocks {
		w := mod.ExportedGlobal(fmt.Sprint(meter.CoverPrefix, i/meter.CoverWord)).Get()
		hit = append(hit, w>>(i%meter.CoverWord)&1 != 0)
	}
	return blocks, hit
}

func TestCoverSaysWhichBlocksRan(t *testing.T) {
	b := newBuilder()
	b.function(branches...)
	b.function(0x01)
	b.export("f", 0)
	b.export("g", 1)
	blocks, hit := ran(t, b.bytes(), "f")
	require.Equal(t, []bool{true, true, false, true, false, true, true, false}, hit, "entry, then, else, after, trap, block, end, the other function")
	var traps []int
	for i, bl := range blocks {
		if bl.Traps {
			traps = append(traps, i)
		}
	}
	require.Equal(t, []int{4}, traps)
	require.EqualValues(t, 1, blocks[7].Function)
	_, hit = ran(t, b.bytes())
	require.NotContains(t, hit, true, "nothing was called")
}

func TestMoreBlocksThanAWordHas(t *testing.T) {
	b := newBuilder()
	b.function(repeat(40, 0x41, 0x01, 0x04, 0x40, 0x01, 0x0b)...)
	b.export("f", 0)
	blocks, hit := ran(t, b.bytes(), "f")
	require.Len(t, blocks, 80)
	require.NotContains(t, hit, false)
}

func TestBlocksHaveTheirLinesOfSource(t *testing.T) {
	wasm, err := os.ReadFile("../testdata/lines.wasm")
	require.NoError(t, err)
	_, blocks, err := meter.Cover(wasm)
	require.NoError(t, err)
	lines := map[int]bool{}
	for _, b := range blocks {
		require.NotEmpty(t, b.Name)
		for _, l := range b.Lines {
			lines[l.Line] = lines[l.Line] || strings.HasSuffix(l.File, "lines.c")
		}
	}
	for _, line := range []int{10, 15, 19, 21, 26} {
		require.True(t, lines[line], "line %d", line)
	}
}

func TestCoverRefusesWhatIsMalformed(t *testing.T) {
	_, _, err := meter.Cover([]byte("\x00asm\x01\x00\x00\x00\x01\xff"))
	var at *meter.Error
	require.ErrorAs(t, err, &at)
}
