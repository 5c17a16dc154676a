package arenastore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/calloutd/calloutd/host/redirect"
)

const (
	slabSize       = 16 << 10
	slabsPerRegion = 128
	regionSize     = slabsPerRegion * slabSize // a huge page
	maxRegions     = 1 << 15                   // that a ref can tell apart: 64 GiB

	// maxWarm is how many free slabs keep their pages, 4 MiB: a store that breathes
	// does not go to the system each time.
	maxWarm = 256

	// large is from how many regions on a store is better off with huge pages.
	large = 4
)

// A region is memory as it comes from the system. What is known of its slabs is in the
// place of the first one, where it shares a huge page with them.
type region struct {
	mem  []byte
	free []uint8 // the slabs that nobody has
	at   int     // in pool.room, if it has a free slab
}

// firstSlab of a region is not for what is known of the others.
const firstSlab = 1

var _ [slabSize]byte = [unsafe.Sizeof([slabsPerRegion]slab{})]byte{}

// A slab is memory for hops of one class of one shard, whose lock guards it. Its
// id is the number of its region and its own there. Its neighbours are of other
// shards, so it fills a cache line.
type slab struct {
	used  [maxSlots / 64]uint64 // a bit for each slot
	live  uint16
	class uint8
	warm  bool   // nobody has it and its pages are kept
	at    uint32 // in class.slabs
	_     [line - 40]byte
}

// A pool gives slabs to the shards. Its lock is inside theirs.
type pool struct {
	// where regions begin, by number. An element changes while nobody has a slab of it,
	// so a shard reads those of its own slabs without the lock.
	where  atomic.Pointer[directory]
	spares []spare // by shard
	memory memory
	limit  int
	_      [line]byte // What is above is read by all shards all the time.

	mu      sync.Mutex
	regions []region // by number
	numbers []uint32 // of regions that are gone
	room    []uint32 // regions with a free slab
	slabs   int      // given out, or spare
	warm    int
	sheets  []*sheet // of tables
}

// A directory is where regions begin. All shards read it all the time, so nothing
// else may be in its cache lines. Pointers to arrays would be checked, by a read of what
// they point to.
type directory struct {
	list []unsafe.Pointer // with room for a line of them
	_    [line - 24]byte
}

// A spare is the slab that a shard gave up and may want again, plus one; zero is
// none. A shard with next to no hops has use for a slab at each that comes, and has
// none when it goes: with a spare it does not meet the others at the pool's lock.
// Whoever finds no other slab takes it, so that the limit is exact.
type spare struct {
	id atomic.Uint32
	_  [line - 4]byte
}

func newPool(m memory, maxBytes int64, shards int) *pool {
	p := &pool{memory: m, limit: int(max(maxBytes/slabSize, 1)), spares: make([]spare, shards)}
	p.where.Store(&directory{list: make([]unsafe.Pointer, 0, line/8)})
	return p
}

func (p *pool) begin(region uint32) unsafe.Pointer { return p.where.Load().list[region] }

func (p *pool) slab(id uint32) *slab {
	return (*slab)(unsafe.Add(p.begin(id/slabsPerRegion), uintptr(id%slabsPerRegion)*unsafe.Sizeof(slab{})))
}

// slot is the memory from the beginning of a slot to the end of its slab.
func (p *pool) slot(r ref) []byte {
	at := uint32(r-1) % grainsPerRegion * grain
	return unsafe.Slice((*byte)(unsafe.Add(p.begin(uint32(r-1)/grainsPerRegion), at)), slabSize-at%slabSize)
}

// take gives a slab to a shard. Its bytes are anything.
func (p *pool) take(shard int) (id uint32, err error) {
	if id, ok := p.spares[shard].take(); ok {
		return id, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slabs >= p.limit {
		for i := range p.spares {
			if id, ok := p.spares[i].take(); ok {
				return id, nil
			}
		}
		return 0, fmt.Errorf("%w: the hops take %d KiB, the limit; raise the limit of memory", redirect.ErrFull, p.slabs*slabSize>>10)
	}
	if len(p.room) == 0 {
		if err := p.grow(); err != nil {
			return 0, err
		}
	}
	n := p.room[len(p.room)-1]
	r := &p.regions[n]
	last := len(r.free) - 1
	at := r.free[last]
	if r.free = r.free[:last]; last == 0 {
		p.leave(r)
	}
	p.slabs++
	id = n*slabsPerRegion + uint32(at)
	if s := p.slab(id); s.warm {
		s.warm = false
		p.warm--
	}
	return id, nil
}

func (s *spare) take() (id uint32, ok bool) {
	id = s.id.Load()
	if id == 0 {
		return 0, false
	}
	id = s.id.Swap(0)
	return id - 1, id != 0
}

// keep makes a slab the spare one, if there is none.
func (s *spare) keep(id uint32) bool { return s.id.Load() == 0 && s.id.CompareAndSwap(0, id+1) }

// grow takes a region from the system.
func (p *pool) grow() error {
	have := len(p.regions) - len(p.numbers)
	if have == maxRegions {
		return fmt.Errorf("%w: the hops take %d MiB, the most that a store can manage", redirect.ErrFull, maxRegions*regionSize>>20)
	}
	mem, err := p.memory.take(regionSize, have >= large)
	if err != nil {
		return fmt.Errorf("%w: the system gives no more memory than %d MiB: %w", redirect.ErrFull, have*regionSize>>20, err)
	}
	r := region{mem: mem, free: make([]uint8, 0, slabsPerRegion)}
	for at := slabsPerRegion - 1; at >= firstSlab; at-- {
		r.free = append(r.free, uint8(at))
	}
	n, begin := uint32(len(p.regions)), unsafe.Pointer(unsafe.SliceData(mem))
	if last := len(p.numbers) - 1; last >= 0 {
		n, p.numbers = p.numbers[last], p.numbers[:last]
		p.regions[n], p.where.Load().list[n] = r, begin
	} else {
		p.regions = append(p.regions, r)
		p.where.Store(&directory{list: append(p.where.Load().list, begin)})
	}
	p.enter(n)
	return nil
}

// give takes a slab of a shard back, and gives regions that are all free back to the
// system; the last one with room stays. Where memory goes back by the region alone
// there are no spares: one would keep all of its region.
func (p *pool) give(shard int, id uint32) {
	if p.memory.drops() && p.spares[shard].keep(id) {
		return
	}
	n, at := id/slabsPerRegion, id%slabsPerRegion
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.regions[n]
	if p.warm < maxWarm {
		p.slab(id).warm = true
		p.warm++
	} else {
		p.memory.drop(r.mem[at*slabSize:][:slabSize])
	}
	if len(r.free) == 0 {
		p.enter(n)
	}
	r.free = append(r.free, uint8(at))
	p.slabs--
	if len(r.free) == slabsPerRegion-firstSlab && len(p.room) > 1 {
		p.drop(n)
	}
}

// drop gives a region back that nobody has a slab of. If the system cannot take
// it, because munmap may need memory, it stays ours.
func (p *pool) drop(n uint32) {
	warm := 0
	for at := range uint32(slabsPerRegion) {
		if p.slab(n*slabsPerRegion + at).warm {
			warm++
		}
	}
	r := &p.regions[n]
	if p.memory.give(r.mem) != nil {
		return
	}
	p.warm -= warm
	p.leave(r)
	*r, p.where.Load().list[n] = region{}, nil
	p.numbers = append(p.numbers, n)
}

func (p *pool) enter(n uint32) {
	p.regions[n].at = len(p.room)
	p.room = append(p.room, n)
}

func (p *pool) leave(r *region) {
	last := len(p.room) - 1
	p.room[r.at] = p.room[last]
	p.regions[p.room[last]].at = r.at
	p.room = p.room[:last]
}

// close gives everything back; nobody may use a slab any more.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.regions {
		if r.mem != nil {
			_ = p.memory.give(r.mem)
		}
	}
	for _, s := range p.sheets {
		_ = p.memory.give(s.mem)
	}
	p.where.Store(new(directory))
	p.regions, p.numbers, p.room, p.slabs, p.warm, p.sheets = nil, nil, nil, 0, 0, nil
}

// Memory is what the system has not got back, in bytes.
func (p *pool) Memory() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.memory.drops() {
		return int64(p.slabs+p.warm) * slabSize
	}
	return int64(len(p.regions)-len(p.numbers)) * regionSize
}
