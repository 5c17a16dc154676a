package arenastore

import (
	"fmt"
	"sync"

	"github.com/calloutd/calloutd/host/internal/percore"
	"github.com/calloutd/calloutd/host/redirect"
)

// tables is how many indexes a shard has: the growth of one is short.
const tables = 64

// A shard is a part of the hops, mostly those that one core made. Nothing that
// points into a slot is kept when the lock is given up: a hop may move then.
type shard struct {
	mu      sync.Mutex
	number  int
	live    int
	share   percore.Share
	pool    *pool
	tables  [tables]table
	classes [128]*class
	recent  [recents]recent
	_       [line]byte
}

// recents is how many of the newest hops of a shard are kept as they were put, by
// their hash: a proxy asks for a hop soon after it was made. A hop does not
// change, so who asks may have the same as who put it. Not so many that the
// collector notices.
const recents = 64

type recent struct {
	serial uint64
	hop    *redirect.Hop
}

func (d *shard) newest(h uint64) *recent { return &d.recent[(h>>16^h)%recents] }

// table shares no bits of the hash with the choice of the entry.
func (d *shard) table(h uint64) *table { return &d.tables[h/together%tables] }

// appendEncoded appends the encoding of a hop to b. The slot has the last word about
// whose it is: one that was freed or used again answers for nobody.
func (d *shard) appendEncoded(b []byte, e *entry) ([]byte, error) {
	n, slot := len(b), d.pool.slot(e.ref)[:sizes[e.class()]]
	b = append(b, slot[slotHop:]...) // All of it: the length is one more read to wait for.
	if serial := slotSerial(slot); serial != e.serial {
		return b[:n], fmt.Errorf("%w: hop %d is in the slot of hop %d", redirect.ErrNotFound, serial, e.serial)
	}
	return b[:n+slotLen(slot)], nil
}

// write puts h, whose encoding has n bytes, into a free slot of a class.
func (d *shard) write(h *redirect.Hop, n int, class uint8) (ref, error) {
	r, err := d.take(class)
	if err != nil {
		return 0, err
	}
	b := d.pool.slot(r)
	setSlotLen(b, n)
	_, _ = h.AppendBinary(b[slotHop:slotHop]) // EncodedLen has said that it can be.
	return r, nil
}

func (d *shard) take(id uint8) (ref, error) {
	c := d.classes[id]
	if c == nil {
		c = newClass(d.pool, id)
		d.classes[id] = c
	}
	if r := c.takeSpare(); r != 0 {
		return r, nil
	}
	if r := c.take(); r != 0 {
		return r, nil
	}
	s, err := d.pool.take(d.number)
	if err != nil {
		return 0, err
	}
	c.push(s)
	return c.takeOf(len(c.slabs) - 1), nil
}

// give frees a slot: it is a spare one, or it and half of those that were go back to their
// slabs; and memory that the class has no use for goes to the pool.
func (d *shard) give(r ref, id uint8) {
	c := d.classes[id]
	if c.spare(r) {
		return
	}
	c.give(d.pool.slab(r.slab()), r)
	given := 1 + c.giveSpares((c.nspare+1)/2)
	if !c.sparse() {
		return
	}
	given += c.giveSpares(c.nspare) // No slot in use is a spare one now.
	for ; given > 0 && c.sparse(); given-- {
		d.shrink(c)
	}
}

// shrink moves two hops out of the last slab of a class, or takes the slab out
// when it is empty. With two it is empty before its class has lost another slab
// of hops, and no operation waits for more.
func (d *shard) shrink(c *class) {
	for range 2 {
		from := c.highest()
		if from == 0 {
			d.pool.give(d.number, c.pop())
			break
		}
		b := d.pool.slot(from)
		serial := slotSerial(b)
		h := hash(serial)
		to := c.take() // Lower: more slots are free than the last slab has.
		copy(d.pool.slot(to), b[:slotHop+slotLen(b)])
		d.table(h).find(h, serial).ref = to
		c.give(d.pool.slab(from.slab()), from)
	}
	for c.live == 0 && len(c.slabs) > 0 {
		d.pool.give(d.number, c.pop())
	}
}
