package meter_test

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// withData is a module with a page of memory and a data section.
func withData(data string) []byte {
	return assemble(section(5, 1, 0, 1), section(7, 1, 1, 'm', 2, 0), section(11, []byte(data)...))
}

// Segments in any order, on top of each other and outside of the memory.
func TestDataIsWhatItWas(t *testing.T) {
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2|experimental.CoreFeaturesExtendedConst))
	defer rt.Close(context.Background())
	joined := 0
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		at, n := rapid.Int64Range(0, 200).Draw(t, "first"), rapid.IntRange(0, 8).Draw(t, "segments")
		kinds := []string{"number", "memory 0", "sum", "passive"}[:rapid.SampledFrom([]int{2, 2, 4}).Draw(t, "kinds")]
		for k := range n {
			switch rapid.SampledFrom(kinds).Draw(t, "kind") {
			case "number":
				data = append(binary64(append(data, 0, 0x41), at), 0x0b)
			case "sum":
				data = append(binary64(append(data, 0, 0x41, 8, 0x41), at-8), 0x6a, 0x0b)
			case "memory 0":
				data = append(binary64(append(data, 2, 0, 0x41), at), 0x0b)
			case "passive":
				data = append(data, 1)
			}
			text := slices.Repeat([]byte{byte('a' + k)}, rapid.IntRange(0, 100).Draw(t, "length"))
			data = vec(data, text)
			at = max(0, at+int64(len(text))+rapid.SampledFrom([]int64{0, 1, 8, 63, 64, 65, -1, -30, -400, 65200}).Draw(t, "gap"))
		}
		wasm := withData(string(append(binary.AppendUvarint(nil, uint64(n)), data...)))
		outcome := func(wasm []byte) (memory string, fits bool) {
			mod, err := rt.InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				require.ErrorContains(t, err, "out of bounds memory access")
				return "", false
			}
			defer mod.Close(context.Background())
			all, _ := mod.Memory().Read(0, mod.Memory().Size())
			return string(all), true
		}
		memory, fits := outcome(wasm)
		out, err := meter.Unmetered(wasm)
		require.NoError(t, err)
		if segments(t, out) < n {
			joined++
		}
		got, gotFits := outcome(out)
		require.Equal(t, fits, gotFits)
		require.Equal(t, memory, got)
	})
	require.Positive(t, joined)
}

// segments is how many a module has.
func segments(t require.TestingT, wasm []byte) int {
	s, err := meter.Inspect(wasm)
	require.NoError(t, err)
	for _, s := range s.Sections {
		if s.Name == "data" {
			n, _ := binary.Uvarint(wasm[s.Offset:])
			return int(n)
		}
	}
	return 0
}

// The Go linker's, of which the host kept 40,000 in a list for each instance.
func TestAGoModuleHasFewDataSegments(t *testing.T) {
	wasm, err := os.ReadFile("../../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	require.Greater(t, segments(t, wasm), 1000)
	out, err := meter.Unmetered(wasm)
	require.NoError(t, err)
	require.Less(t, segments(t, out), 100)
}

// What code names by its number, and what is written into a memory that somebody else has
// written to, is left as it is.
func TestDataThatIsLeftAsItIs(t *testing.T) {
	const data = "\x02\x00\x41\x00\x0b\x01a\x00\x41\x04\x0b\x01b"
	own := section(5, 1, 0, 1)
	for name, c := range map[string]struct {
		wasm []byte
		want int
	}{
		"joined":               {assemble(own, section(11, []byte(data)...)), 1},
		"numbered":             {assemble(own, section(12, 2), section(11, []byte(data)...)), 2},
		"a memory of the host": {assemble(section(2, append([]byte{1}, "\x01e\x01m\x02\x00\x01"...)...), section(11, []byte(data)...)), 2},
		"where is not known":   {assemble(own, section(6, 1, 0x7f, 0, 0x41, 2, 0x0b), section(11, []byte("\x03\x00\x23\x00\x0b\x03xyz"+data[1:])...)), 3},
		"one upon another":     {assemble(own, section(11, []byte("\x03\x00\x41\x03\x0b\x03xyz"+data[1:])...)), 3},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := meter.Unmetered(c.wasm)
			require.NoError(t, err)
			require.Equal(t, c.want, segments(t, out))
		})
	}
}
