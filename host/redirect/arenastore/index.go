package arenastore

import (
	"math/bits"

	"github.com/calloutd/calloutd/host/internal/percore"
)

// A table finds the slot of a serial: open addressing with linear probing, no
// pointers. An entry without a ref is free, or it was removed: then who looks for
// another one goes on, so that nobody has to move those that follow.
//
// Everything but the hop itself is here, so that holders come and go without a
// look at the slot, which is far away in memory.
type table struct {
	entries []entry
	sheet   *sheet // that the entries are in
	shift   int    // 64 - log2(len(entries))
	n       int    // hops
	used    int    // entries that are not free: hops, and what was removed
}

type entry struct {
	serial uint64
	ref    ref
	holders
}

// holders is how many holders a hop has, times oneHolder, and the class of its slot.
type holders uint32

const (
	oneHolder  holders = 1 << 8
	maxHolders         = 1<<24 - 1
)

func (h holders) count() int   { return int(h / oneHolder) }
func (h holders) class() uint8 { return uint8(h) }

// removed is an entry whose hop went. Its memory is used again when a table is made anew,
// or by the next hop that passes it.
var removed = entry{holders: 1}

// A table is at most three quarters in use. It is made anew then, twice as large where
// more than five eighths are hops; and half as large where less than one eighth is, but
// for its least size.
const minTable = line / 16

// together is how many serials that a core got one after the other are neighbours in
// their table, in one cache line: who puts them waits for memory once, and so does who
// deletes them if they end in that order.
const together = 4

// hash is the same for serials that are neighbours but for the last bits, which say
// which of them it is.
func hash(serial uint64) uint64 {
	which := serial >> percore.ShardBits % together
	h := serial ^ which<<percore.ShardBits
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	h ^= h >> 29
	h *= 0xBF58476D1CE4E5B9
	return (h^h>>32)&^(together-1) | which
}

// start is where to look for a hash first.
func (t *table) start(h uint64) int {
	return int(h>>t.shift&^(together-1) | h%together)
}

func (t *table) mask() int { return len(t.entries) - 1 }

// find returns the entry of a serial, which is good until the table is changed;
// nil if there is none.
func (t *table) find(h, serial uint64) *entry {
	if i := t.at(h, serial); i >= 0 {
		return &t.entries[i]
	}
	return nil
}

// at is where the entry of a serial is, less than zero if there is none.
func (t *table) at(h, serial uint64) int {
	if t.n == 0 {
		return -1
	}
	for i := t.start(h); ; i++ {
		at := i & t.mask()
		switch e := &t.entries[at]; {
		case e.serial == serial && e.ref != 0:
			return at
		case *e == entry{}:
			return -1
		}
	}
}

// insert adds an entry for a serial that has none.
func (t *table) insert(p *pool, h uint64, e entry) {
	if (t.used+1)*4 > len(t.entries)*3 {
		size := max(minTable, len(t.entries))
		if t.n*8 > size*5 {
			size *= 2
		}
		t.resize(p, size)
	}
	t.place(h, e)
}

func (t *table) place(h uint64, e entry) {
	i := t.start(h)
	for t.entries[i].ref != 0 {
		i = (i + 1) & t.mask()
	}
	if t.entries[i] == (entry{}) {
		t.used++
	}
	t.entries[i] = e
	t.n++
}

// remove deletes the entry at i. If none follows it, nobody has to go on there, nor at
// those that were removed before it.
func (t *table) remove(p *pool, i int) {
	t.entries[i] = removed
	t.n--
	mask := t.mask()
	if t.entries[(i+1)&mask] == (entry{}) {
		for ; t.entries[i] == removed; i = (i - 1) & mask {
			t.entries[i] = entry{}
			t.used--
		}
	}
	if len(t.entries) > minTable && t.n*8 < len(t.entries) {
		t.resize(p, len(t.entries)/2)
	}
}

func (t *table) resize(p *pool, size int) {
	old, sheet := t.entries, t.sheet
	t.entries, t.sheet = p.block(size)
	t.n, t.used = 0, 0
	t.shift = 64 - bits.Len(uint(size-1))
	for _, e := range old {
		if e.ref != 0 {
			t.place(hash(e.serial), e)
		}
	}
	p.giveBlock(old, sheet)
}
