package arenastore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unsafe"
)

// Memories are the kinds of memory that a store can have here.
var Memories = map[string]func(Options) *Store{
	"heap":   func(o Options) *Store { return open(o, heap{}) },
	"system": func(o Options) *Store { return open(o, systemMemory()) },
}

// DropsPages says that memory goes back by the page.
func (s *Store) DropsPages() bool { return s.pool.memory.drops() }

// Check says what does not hold of the store; nobody may use it meanwhile.
func (s *Store) Check() error {
	live := 0
	for i := range s.shards {
		n, err := s.shards[i].check()
		if err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
		live += n
	}
	if slabs := s.slabs() + s.Spares(); slabs != s.pool.slabs {
		return fmt.Errorf("shards have %d slabs, the pool gave them %d", slabs, s.pool.slabs)
	}
	if err := s.checkSheets(); err != nil {
		return err
	}
	s.full() // Collects all shares.
	if room := s.quota.Left(); live != s.Len() || int64(live)+room != s.quota.Limit() {
		return fmt.Errorf("%d hops, counted %d; room for %d, the limit is %d", live, s.Len(), room, s.quota.Limit())
	}
	return nil
}

// checkSheets says whether the tables have the blocks that nobody else has.
func (s *Store) checkSheets() error {
	taken := map[*sheet]uint64{}
	for i := range s.shards {
		for _, t := range s.shards[i].tables {
			if t.sheet == nil {
				continue
			}
			at := (uintptr(unsafe.Pointer(&t.entries[0])) - uintptr(unsafe.Pointer(&t.sheet.mem[0]))) / uintptr(t.sheet.size)
			if taken[t.sheet]>>at&1 == 1 || len(t.entries)*16 != t.sheet.size {
				return fmt.Errorf("block %d of %d bytes is that of two tables, or too small for %d entries", at, t.sheet.size, len(t.entries))
			}
			taken[t.sheet] |= 1 << at
		}
	}
	for _, sheet := range s.pool.sheets {
		if sheet.free != sheet.all()&^taken[sheet] {
			return fmt.Errorf("a sheet has free blocks %b, but %b are taken", sheet.free, taken[sheet])
		}
	}
	if len(taken) != len(s.pool.sheets) {
		return fmt.Errorf("tables are in %d sheets of %d", len(taken), len(s.pool.sheets))
	}
	return nil
}

// Sheets is how many there are.
func (s *Store) Sheets() int { return len(s.pool.sheets) }

// NoSheets makes a store on a system that has no memory for any.
func NoSheets(o Options) *Store { return open(o, noSheets{heap{}}) }

type noSheets struct{ memory }

func (m noSheets) take(size int, huge bool) ([]byte, error) {
	if huge {
		return nil, errors.ErrUnsupported
	}
	return m.memory.take(size, huge)
}

func (s *Store) slabs() (n int) {
	for i := range s.shards {
		for _, c := range s.shards[i].classes {
			if c != nil {
				n += len(c.slabs)
			}
		}
	}
	return n
}

// Spares is how many shards have a spare slab.
func (s *Store) Spares() (n int) {
	for i := range s.pool.spares {
		if s.pool.spares[i].id.Load() != 0 {
			n++
		}
	}
	return n
}

// Entries is how many entries the index has, and Line which of its cache lines a serial
// should be in.
func (s *Store) Entries() (n int) {
	for i := range s.shards {
		for _, t := range s.shards[i].tables {
			n += len(t.entries)
		}
	}
	return n
}

func (s *Store) Line(serial uint64) (shard, table, line int) {
	x := hash(serial)
	t := s.shard(serial).table(x)
	return s.serials.Shard(serial), int(x / together % tables), t.start(x) * 16 / 64
}

// Shards is how many shards the store has: a serial's is the rest by it.
func (s *Store) Shards() int { return len(s.shards) }

func (d *shard) check() (live int, err error) {
	taken := map[ref]uint64{}
	for i := range d.tables {
		n, gone := 0, 0
		for _, e := range d.tables[i].entries {
			if e.ref == 0 {
				gone += int(e.holders)
				continue
			}
			n++
			if other, ok := taken[e.ref]; ok {
				return 0, fmt.Errorf("hops %d and %d have one slot", e.serial, other)
			}
			taken[e.ref] = e.serial
			if got := slotSerial(d.pool.slot(e.ref)); got != e.serial {
				return 0, fmt.Errorf("hop %d is kept in the slot of hop %d", got, e.serial)
			}
			if x := hash(e.serial); d.table(x).find(x, e.serial) == nil {
				return 0, fmt.Errorf("hop %d is not found", e.serial)
			}
		}
		if t := &d.tables[i]; n != t.n || n+gone != t.used {
			return 0, fmt.Errorf("table %d has %d hops of %d entries in use, counted %d of %d", i, n, n+gone, t.n, t.used)
		}
	}
	slots := 0
	for _, c := range d.classes {
		if c != nil {
			if err := c.check(); err != nil {
				return 0, err
			}
			slots += c.live - c.nspare
		}
	}
	if slots != len(taken) || slots != d.live {
		return 0, fmt.Errorf("%d slots for %d hops", slots, len(taken))
	}
	return slots, nil
}

func (c *class) check() error {
	live := 0
	for i, id := range c.slabs {
		s := c.pool.slab(id)
		used := 0
		for _, w := range s.used {
			used += bits.OnesCount64(w)
		}
		room := c.room[i/64]>>(i%64)&1 == 1
		if int(s.at) != i || s.class != c.id || used != int(s.live) || room != (used < c.per) {
			return fmt.Errorf("slab %d of class %d: %+v, room %v", i, c.id, s, room)
		}
		live += used
	}
	if c.nspare*4 > c.live-c.nspare {
		return fmt.Errorf("class %d has %d spare slots for %d hops", c.id, c.nspare, c.live-c.nspare)
	}
	if free := len(c.slabs)*c.per - c.live; live != c.live || free > live+3*c.per {
		return fmt.Errorf("class %d has %d hops, counted %d; %d slots are free", c.id, live, c.live, free)
	}
	return nil
}

// MaxReferences is how many holders a hop can have.
const MaxReferences = maxHolders

func (h *holders) setCount(n int) { *h = holders(h.class()) | holders(n)*oneHolder }

// SetReferences makes a hop that has n holders.
func (s *Store) SetReferences(serial uint64, n int) {
	x := hash(serial)
	s.shard(serial).table(x).find(x, serial).holders.setCount(n)
}

// Overwrite puts another serial into the slot of a hop.
func (s *Store) Overwrite(serial, other uint64) {
	x := hash(serial)
	d := s.shard(serial)
	binary.LittleEndian.PutUint64(d.pool.slot(d.table(x).find(x, serial).ref)[slotHop:], other)
	*d.newest(x) = recent{}
}

// Pool tells about the memory of a store and does not keep the store.
func (s *Store) Pool() interface{ Memory() int64 } { return s.pool }
