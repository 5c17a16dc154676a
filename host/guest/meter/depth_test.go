package meter_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// descend is a function that calls itself as often as the global 0 says, and leaves
// in one of the ways that there are.
func descend(locals uint64, leave ...byte) []byte {
	b := newBuilder()
	b.locals = locals
	b.function(append([]byte{
		0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, 1, 0x6b, 0x36, 2, 0, // the i32 at 0 goes down by 1
		0x41, 0, 0x28, 2, 0, 0x04, 0x40, 0x10, 0, 0x0b, // if it is not 0: call 0
	}, leave...)...)
	b.export("f", 0)
	return b.bytes()
}

// deep calls it so deep and reports whether it was too deep.
func deep(t *testing.T, m api.Module, n uint32) bool {
	t.Helper()
	mem := memoryOf(t, m)
	require.True(t, mem.WriteUint32Le(0, n))
	require.False(t, spent(t, m, "f", 1<<20))
	return tooDeep(m)
}

func memoryOf(t *testing.T, m api.Module) api.Memory {
	t.Helper()
	mem := m.Memory()
	require.NotNil(t, mem)
	return mem
}

func TestDepthIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		locals uint64
		most   uint32
		leave  []byte
	}{
		"falls out":           {0, meter.MaxDepth, nil},
		"returns":             {0, meter.MaxDepth, []byte{0x0f}},
		"branches out":        {0, meter.MaxDepth, []byte{0x02, 0x40, 0x0c, 1, 0x0b}},
		"branches if":         {0, meter.MaxDepth, []byte{0x41, 1, 0x0d, 0}},
		"branches by a table": {0, meter.MaxDepth, []byte{0x41, 1, 0x0e, 1, 0, 0}},
		"large frames":        {3200, meter.MaxDepth / 101, nil},
	} {
		t.Run(name, func(t *testing.T) {
			wasm := descend(c.locals, c.leave...)
			m := start(t, wasm)
			for range 3 { // Every way out gives back what the way in took.
				require.False(t, deep(t, m, c.most))
			}
			require.True(t, deep(t, m, c.most+1))
		})
	}
}

// Every circle of the call graph has a function that counts; what is in none does
// not.
func TestOneOfEachCircleCounts(t *testing.T) {
	counted := func(calls ...[]byte) int {
		b := newBuilder()
		for _, callees := range calls {
			var code []byte
			for _, f := range callees {
				code = append(code, 0x10, f)
			}
			b.function(code...)
		}
		b.export("f", 0)
		s, err := meter.Inspect(b.bytes())
		require.NoError(t, err)
		return s.Inserted.Depths
	}
	require.Equal(t, 0, counted([]byte{1, 2}, []byte{2}, nil), "a diamond")
	require.Equal(t, 1, counted([]byte{0}), "itself")
	require.Equal(t, 1, counted([]byte{1}, []byte{2}, []byte{3}, []byte{0}), "a ring")
	require.Equal(t, 2, counted([]byte{1, 3}, []byte{2}, []byte{1}, []byte{4}, []byte{3}), "two rings")
}

// No circle is needed to go deep, nor is an instruction that costs: a chain of functions
// that hand many parameters on.
func TestALongChainCounts(t *testing.T) {
	const params, chain = 1000, 400
	var args, hand []byte
	for p := range params {
		args, hand = append(args, 0x41, 0), uleb(append(hand, 0x20), p)
	}
	types := append(vec([]byte{2, 0x60, 0, 0, 0x60}, repeat(params, 0x7f)), 0)
	code := append(uleb(nil, chain+1), vec(nil, append(append([]byte{0}, args...), 0x10, 1, 0x0b))...)
	for f := 1; f <= chain; f++ {
		body := []byte{0}
		if f < chain {
			body = uleb(append(append(body, hand...), 0x10), f+1)
		}
		code = append(code, vec(nil, append(body, 0x0b))...)
	}
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id      byte
		content []byte
	}{{1, types}, {3, append(append(uleb(nil, chain+1), 0), repeat(chain, 1)...)}, {7, []byte{1, 1, 'f', 0, 0}}, {10, code}} {
		wasm = vec(append(wasm, s.id), s.content)
	}
	m := start(t, wasm)
	spent(t, m, "f", 1<<20)
	require.True(t, tooDeep(m))
}
