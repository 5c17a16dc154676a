package guest

import (
	"context"

	"github.com/tetratelabs/wazero/experimental"
)

// withMemory gives instances memory from the system and not from Go's heap. The
// limit is address space then, of which the system gives what is used, with
// zeroes, as it is used: starting an instance does not clear all of it, and it
// does not count as heap.
func withMemory(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(
		func(_, most uint64) experimental.LinearMemory { return newMemory(most) }))
}

// A memory never moves, so that views of it stay good until it is freed. The
// instance that it is of frees it when it is closed: nobody looks at the block
// after that.
type memory struct {
	all  []byte
	free func([]byte)
}

func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.all)) {
		return nil
	}
	return m.all[:size:len(m.all)]
}

func (m *memory) Free() {
	if m.free != nil {
		m.free(m.all)
	}
	m.all, m.free = nil, nil
}

// onHeap is one where the system has none to give.
func onHeap(most uint64) *memory { return &memory{all: make([]byte, most)} }
