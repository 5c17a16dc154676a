package arenastore

import "math/bits"

// A table finds the slot of a serial: open addressing with linear probing, no
// pointers. An entry without a ref is free.
//
// Everything but the hop itself is here, so that holders come and go without a
// look at the slot, which is far away in memory.
type table struct {
	entries []entry
	shift   int // 64 - log2(len(entries))
	n       int
}

type entry struct {
	serial uint64
	ref    ref
	refs   uint32
}

// A table is at most three quarters full, and above its least size one eighth.
const minTable = line / 16

// hash is a bijection: serials that follow each other go to different places.
func hash(serial uint64) uint64 {
	serial ^= serial >> 32
	serial *= 0x9E3779B97F4A7C15
	serial ^= serial >> 29
	serial *= 0xBF58476D1CE4E5B9
	return serial ^ serial>>32
}

func (t *table) mask() int { return len(t.entries) - 1 }

// find returns the entry of a serial, which is good until the table is changed;
// nil if there is none.
func (t *table) find(h, serial uint64) *entry {
	if t.n == 0 {
		return nil
	}
	for i := int(h >> t.shift); ; i++ {
		e := &t.entries[i&t.mask()]
		if e.ref == 0 {
			return nil
		}
		if e.serial == serial {
			return e
		}
	}
}

// insert adds an entry for a serial that has none.
func (t *table) insert(h uint64, e entry) {
	if (t.n+1)*4 > len(t.entries)*3 {
		t.resize(max(minTable, 2*len(t.entries)))
	}
	t.place(h, e)
	t.n++
}

func (t *table) place(h uint64, e entry) {
	i := int(h >> t.shift)
	for t.entries[i].ref != 0 {
		i = (i + 1) & t.mask()
	}
	t.entries[i] = e
}

// remove deletes the entry of a serial that has one and closes the gap.
func (t *table) remove(h, serial uint64) {
	mask := t.mask()
	i := int(h >> t.shift)
	for t.entries[i].serial != serial || t.entries[i].ref == 0 {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; t.entries[j].ref != 0; j = (j + 1) & mask {
		// An entry may move to i if that is not before its own place.
		if own := int(hash(t.entries[j].serial) >> t.shift); (j-own)&mask >= (j-i)&mask {
			t.entries[i] = t.entries[j]
			i = j
		}
	}
	t.entries[i] = entry{}
	if t.n--; len(t.entries) > minTable && t.n*8 < len(t.entries) {
		t.resize(len(t.entries) / 2)
	}
}

func (t *table) resize(size int) {
	old := t.entries
	t.entries = make([]entry, size)
	t.shift = 64 - bits.Len(uint(size-1))
	for _, e := range old {
		if e.ref != 0 {
			t.place(hash(e.serial), e)
		}
	}
}
