package arbitrate

import (
	"math/bits"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// A sieve says of most keys that they are not in a table, without a look at it.
//
// It is the one part of an index that is changed in place: a bit more makes a
// reader of an older index look in vain, and no more. Bits are never taken back;
// after so many keys a new sieve is made of what the table has.
type sieve struct {
	words []atomic.Uint64
	shift uint8 // 64 - log2(len(words))
	limit int   // keys for which it is made
}

// newSieve has 8 to 16 bits for each of so many keys.
func newSieve(limit int) *sieve {
	log := max(bits.Len(uint(limit*8/64)), 1)
	return &sieve{make([]atomic.Uint64, 1<<log), uint8(64 - log), limit}
}

// at is where a key's bit is. The table does not go by these bits of it alone.
func (s *sieve) at(key uint64) (*atomic.Uint64, uint64) {
	return &s.words[key>>(s.shift%64)], 1 << ((key >> 8) % 64)
}

// has is 1 if the key may be in the table, else 0.
func (s *sieve) has(key uint64) uint {
	return uint(s.words[key>>(s.shift%64)].Load() >> ((key >> 8) % 64) & 1)
}

func (s *sieve) add(key uint64) {
	if w, bit := s.at(key); w.Load()&bit == 0 {
		w.Or(bit)
	}
}

// note tells the sieve of a key that comes into the table.
func (x *index) note(key uint64) {
	if x.noted++; x.seen == nil || x.noted > x.seen.limit {
		x.seen, x.noted = sieveOf(&x.table), x.table.Len()
	}
	x.seen.add(key)
}

// sieveOf has room for as many keys again as there are.
func sieveOf(t *trie.Map[bucket]) *sieve {
	s := newSieve(max(256, 2*t.Len()))
	for key := range t.All() {
		s.add(key)
	}
	return s
}
