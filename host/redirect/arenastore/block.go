package arenastore

import (
	"math/bits"
	"slices"
	"unsafe"
)

// A sheet is blocks for large tables, of one size, in huge pages: a serial is looked for
// anywhere in the index, which takes one read more if the processor has to look up the
// page. It goes back to the system when no table is in it.
type sheet struct {
	mem  []byte
	size int    // of a block in bytes
	free uint64 // a bit for each block
}

func (s *sheet) all() uint64 { return ^uint64(0) >> (64 - len(s.mem)/s.size) }

// minBlock is the least size of a block. Smaller tables are on the heap: a processor
// knows all their pages, or there are few hops.
const minBlock = regionSize / 64

// block returns entries that are free, and the sheet that they are in; nil if they are on
// the heap.
func (p *pool) block(n int) ([]entry, *sheet) {
	size := n * int(unsafe.Sizeof(entry{}))
	if size < minBlock {
		return make([]entry, n), nil
	}
	p.mu.Lock()
	s := p.sheet(size)
	if s == nil {
		p.mu.Unlock()
		return make([]entry, n), nil
	}
	at := bits.TrailingZeros64(s.free)
	s.free &^= 1 << at
	p.mu.Unlock()
	entries := unsafe.Slice((*entry)(unsafe.Pointer(&s.mem[at*size])), n)
	clear(entries)
	return entries, s
}

// sheet is one with a free block; nil if the system gives no memory.
func (p *pool) sheet(size int) *sheet {
	for _, s := range p.sheets {
		if s.size == size && s.free != 0 {
			return s
		}
	}
	mem, err := p.memory.take(max(size, regionSize), true)
	if err != nil {
		return nil
	}
	s := &sheet{mem: mem, size: size}
	s.free = s.all()
	p.sheets = append(p.sheets, s)
	return s
}

// giveBlock takes back what block returned. If the system cannot take a sheet it is for
// other tables.
func (p *pool) giveBlock(entries []entry, s *sheet) {
	if s == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := int(uintptr(unsafe.Pointer(&entries[0]))-uintptr(unsafe.Pointer(&s.mem[0]))) / s.size
	if s.free |= 1 << at; s.free == s.all() && p.memory.give(s.mem) == nil {
		p.sheets = slices.DeleteFunc(p.sheets, func(other *sheet) bool { return other == s })
	}
}
