package meter_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// reads is a module whose function f reads around its three parameters in some
// way, writes now and then, and returns something of all that it read.
func reads(t *rapid.T) []byte {
	const accumulated = 5
	local := func(most int) byte { return byte(rapid.IntRange(0, most).Draw(t, "local")) }
	constant := func(b []byte) []byte {
		n := rapid.SampledFrom([]int64{0, 1, 2, 4, 8, 12, 100, 32760, 32767, 32768, 40000, 65535, -1, -4, -8, -32767, -32768, -65536, 1 << 20, 1<<20 + 16, -1 << 20, 16 - 1<<20}).Draw(t, "constant")
		return binary64(append(b, 0x41), n)
	}
	address := func(b []byte) []byte {
		b = append(b, 0x20, local(4))
		for range rapid.IntRange(0, 2).Draw(t, "sums") {
			b = append(constant(b), 0x6a)
		}
		return b
	}
	code := []byte{1, 3, 0x7f}
	for range rapid.IntRange(1, 24).Draw(t, "statements") {
		switch rapid.SampledFrom([]string{"load", "load", "load", "wide", "vector", "set", "tee", "store", "if"}).Draw(t, "statement") {
		case "load":
			op := rapid.SampledFrom([]byte{0x28, 0x2c, 0x2d, 0x2e, 0x2f}).Draw(t, "op")
			code = binary.AppendUvarint(append(address(append(code, 0x20, accumulated)), op, 0), offset(t))
			code = append(code, 0x6a, 0x41, 1, 0x77, 0x21, accumulated) // add, rotate
		case "wide":
			code = binary.AppendUvarint(append(address(append(code, 0x20, accumulated)), 0x29, 0), offset(t))
			code = append(code, 0xa7, 0x73, 0x21, accumulated)
		case "vector": // Two loads, and a lane of what is made of them.
			code = append(code, 0x20, accumulated)
			for range 2 {
				sub := rapid.SampledFrom([]byte{0, 0, 1, 4, 6, 7, 8, 9, 10, 92, 93}).Draw(t, "sub")
				code = binary.AppendUvarint(append(address(code), 0xfd, sub, 0), offset(t))
			}
			plain := rapid.SampledFrom([]uint64{35, 39, 78, 79, 81, 110, 121, 142, 174, 177, 183, 206, 214}).Draw(t, "plain")
			code = binary.AppendUvarint(append(code, 0xfd), plain)
			code = append(code, 0xfd, 27, byte(rapid.IntRange(0, 3).Draw(t, "lane")), 0x6a, 0x21, accumulated)
		case "set":
			code = append(address(code), 0x21, local(4))
		case "tee":
			code = append(address(code), 0x22, local(4))
			code = append(code, 0x28, 0, 0, 0x21, local(4)) // What was read is a pointer.
		case "store":
			code = append(append(address(code), 0x20, accumulated), 0x36, 0, 0)
		case "if":
			code = append(code, 0x20, accumulated, 0x41, 1, 0x71, 0x04, 0x40, 0x01, 0x0b)
		}
	}
	code = append(code, 0x20, accumulated, 0x0b)
	m := []byte("\x00asm\x01\x00\x00\x00\x01\x08\x01\x60\x03\x7f\x7f\x7f\x01\x7f\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x09\x02\x01f\x00\x00\x01m\x02\x00")
	return vec(append(m, 10), vec([]byte{1}, code))
}

func offset(t *rapid.T) uint64 {
	return rapid.SampledFrom([]uint64{0, 0, 1, 4, 8, 60, 32767, 32768, 65532, 1<<32 - 8}).Draw(t, "offset")
}

// binary64 appends a signed number of any length.
func binary64(b []byte, n int64) []byte {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Members of structures are read, and what is outside of the memory is not, however
// the address was added up.
func TestReadsAroundAPointerAreTheSame(t *testing.T) {
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	rapid.Check(t, sameReads(rt))
}

func FuzzReads(f *testing.F) {
	rt := wazero.NewRuntime(context.Background())
	f.Fuzz(rapid.MakeFuzz(sameReads(rt)))
}

func sameReads(rt wazero.Runtime) func(*rapid.T) {
	return func(t *rapid.T) {
		wasm := reads(t)
		pointer := rapid.SampledFrom([]uint64{0, 1, 4, 8, 100, 32768, 65000, 65523, 65524, 65528, 65529, 65532, 65533, 65535, 65536, 1 << 31,
			1 << 20, 1<<20 - 8, 1<<32 - 1, 1<<32 - 4, 1<<32 - 8, 1<<32 - 100, 1<<32 - 32768, 1<<32 - 65536, 1<<32 - 1<<20, 1<<32 - 1<<20 - 8})
		args := []uint64{pointer.Draw(t, "a"), pointer.Draw(t, "b"), pointer.Draw(t, "c")}
		outcome := func(wasm []byte) (res []uint64, why, memory string) {
			mod, err := rt.InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig().WithName(""))
			require.NoError(t, err)
			defer mod.Close(context.Background())
			fill(mod.Memory())
			res, err = mod.ExportedFunction("f").Call(context.Background(), args...)
			all, _ := mod.Memory().Read(0, mod.Memory().Size())
			return res, cause(err), string(all)
		}
		res, why, memory := outcome(wasm)
		for name, rewrite := range map[string]func([]byte) ([]byte, error){"unmetered": meter.Unmetered, "metered": metered} {
			out, err := rewrite(wasm)
			require.NoError(t, err)
			gotRes, gotWhy, gotMemory := outcome(out)
			require.Equal(t, why, gotWhy, name)
			require.Equal(t, res, gotRes, name)
			require.Equal(t, memory, gotMemory, name)
		}
	}
}

// fill leaves small numbers in a memory, which are pointers into it.
func fill(m api.Memory) {
	for at := uint32(0); at < m.Size(); at += 4 {
		m.WriteUint32Le(at, at*2654435761>>15)
	}
}

// Many structures at once are more than there are locals to begin them with: the rest is
// left as it is, and the module is valid.
func TestManyStructuresAtOnce(t *testing.T) {
	const params = 200
	var code []byte
	for p := range params {
		get := binary.AppendUvarint([]byte{0x20}, uint64(p))
		code = append(append(code, get...), 0x41, 4, 0x6a, 0x28, 0, 0, 0x1a) // The member behind, then the one at the beginning.
		code = append(append(code, get...), 0x28, 0, 0, 0x1a)
	}
	wasm := assemble(section(1, append(append(binary.AppendUvarint([]byte{1, 0x60}, params), repeat(params, 0x7f)...), 0)...),
		section(3, 1, 0), section(5, 1, 0, 1), section(7, 1, 1, 'f', 0, 0),
		section(10, vec([]byte{1}, append(append([]byte{0}, code...), 0x0b))...))
	m := start(t, wasm)
	require.False(t, spent(t, m, "f", 2, make([]uint64, params)...))
}
