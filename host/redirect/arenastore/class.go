package arenastore

import "math/bits"

// A class is the slots of one size in a shard, under the shard's lock.
//
// The lowest slab with a free slot is filled first; the last one is emptied into
// the others when less than half of all slots is in use (shard.shrink).
type class struct {
	pool      *pool
	id        uint8
	size, per int
	live      int
	slabs     []uint32
	room      []uint64 // a bit for each of slabs that has a free slot
	// spares are slots that were given up last, for the next hops: who deletes one does
	// not wait for what is known of its slab.
	spares [spares]ref
	nspare int
	_      [32]byte // Classes of other shards are next to it: two pairs of cache lines.
}

// spares is how many spare slots a class has at most.
const spares = 32

// spare makes a slot a spare one, unless there are enough: a quarter of the hops, so
// that they keep little memory from others.
func (c *class) spare(r ref) bool {
	if c.nspare == spares || 5*(c.nspare+1) > c.live {
		return false
	}
	c.spares[c.nspare] = r
	c.nspare++
	return true
}

// takeSpare is the spare slot that was given up last; zero if there is none.
func (c *class) takeSpare() ref {
	if c.nspare == 0 {
		return 0
	}
	c.nspare--
	return c.spares[c.nspare]
}

// giveSpares frees a part of the spare slots, those that were given up first, and says
// how many they were.
func (c *class) giveSpares(n int) int {
	for _, r := range c.spares[:n] { // The slabs are far apart: the processor waits for several at once.
		c.give(c.pool.slab(r.slab()), r)
	}
	c.nspare = copy(c.spares[:], c.spares[n:c.nspare])
	return n
}

// line is two cache lines, which processors fetch together. What a shard writes all
// the time is in none with what another one reads.
const line = 128

func newClass(p *pool, id uint8) *class {
	return &class{pool: p, id: id, size: sizes[id], per: slabSize / sizes[id], slabs: make([]uint32, 0, line/4), room: make([]uint64, 0, line/8)}
}

// take finds a free slot; zero if there is none.
func (c *class) take() ref {
	for w, word := range c.room {
		if word != 0 {
			return c.takeOf(w*64 + bits.TrailingZeros64(word))
		}
	}
	return 0
}

func (c *class) takeOf(i int) ref {
	s, w := c.pool.slab(c.slabs[i]), 0
	for s.used[w] == ^uint64(0) {
		w++
	}
	bit := bits.TrailingZeros64(^s.used[w])
	s.used[w] |= 1 << bit
	c.live++
	if s.live++; int(s.live) == c.per {
		c.room[i/64] &^= 1 << (i % 64)
	}
	return makeRef(c.slabs[i], (w*64+bit)*c.size)
}

// give frees a slot of a slab.
func (c *class) give(s *slab, r ref) {
	slot := r.at() / c.size
	s.used[slot/64] &^= 1 << (slot % 64)
	s.live--
	c.live--
	c.room[s.at/64] |= 1 << (s.at % 64)
}

// push adds a slab.
func (c *class) push(id uint32) {
	n := len(c.slabs)
	*c.pool.slab(id) = slab{class: c.id, at: uint32(n)}
	if n%64 == 0 {
		c.room = append(c.room, 0)
	}
	c.room[n/64] |= 1 << (n % 64)
	c.slabs = append(c.slabs, id)
}

// pop takes the last slab out, which must be empty.
func (c *class) pop() uint32 {
	last := len(c.slabs) - 1
	id := c.slabs[last]
	c.slabs = c.slabs[:last]
	c.room[last/64] &^= 1 << (last % 64)
	c.room = c.room[:(last+63)/64]
	return id
}

// sparse says that the last slab should be emptied: less than half of the slots is
// used, and the other slabs have room for what it holds.
func (c *class) sparse() bool {
	free := len(c.slabs)*c.per - c.live
	return len(c.slabs) > 0 && (c.live == 0 || free > c.live+c.per)
}

// highest is the last used slot of the last slab; zero if it is empty.
func (c *class) highest() ref {
	id := c.slabs[len(c.slabs)-1]
	used := &c.pool.slab(id).used
	for w := len(used) - 1; w >= 0; w-- {
		if used[w] != 0 {
			return makeRef(id, (w*64+63-bits.LeadingZeros64(used[w]))*c.size)
		}
	}
	return 0
}
