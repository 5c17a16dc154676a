package arbitrate

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Cache keeps decisions for connections that are equal in all that the decision
// could depend on. Several programs can share one: an entry is of one version of one
// layer. It has room for so many and never more; readers write nothing.
type Cache struct {
	sets  []set
	shift int
	// marked are the layers at which some callout said that its answer is cacheable.
	marked [fwpm.NumLayers]atomic.Bool
	// vain counts, for each layer, the looks of probes that found nothing since one
	// found something.
	vain [fwpm.NumLayers]atomic.Uint32
	// called says of each layer whether callouts had a part in what was kept last: then
	// that is looked for first.
	called [fwpm.NumLayers]atomic.Bool
}

const (
	// probes: one connection of so many looks into the cache whatever was found before.
	probes = 64
	// enoughVain probes in a row that find nothing say that the others need not look.
	enoughVain = 64
)

// useless reports whether a look of a connection that is no probe is likely in vain.
func (c *Cache) useless(l fwpm.LayerID) bool { return c.vain[l].Load() >= enoughVain }

// probed notes what a probe found.
func (c *Cache) probed(l fwpm.LayerID, found bool) {
	switch n := c.vain[l].Load(); {
	case found && n > 0:
		c.vain[l].Store(0)
	case !found && n < enoughVain:
		c.vain[l].Add(1)
	}
}

const setWays = 4

// A set are the entries that a hash can be in, with 16 bits of the hash of each. It has
// as much of the last four that were not there: only who comes again is kept, so that
// connections that are all different cost no memory. It is one cache line.
type set struct {
	tags, missed atomic.Uint64
	entries      [setWays]atomic.Pointer[kept]
	_            [16]byte
}

// kept is an entry, which is never changed once it is in the cache: what was decided, or
// what filters alone tell where callouts are asked.
type kept struct {
	hash    uint64
	version version
	of      inputs // that decide
	in      fwps.Incoming
	// match is the first matching filter of each sublayer that was looked for, in order.
	// With it there is no outcome: callouts are asked, and all inputs decide, under a
	// hash of their own.
	match   []*filter
	nasked  int
	asked   [maxAsked]asked
	outcome fwps.Outcome
}

// A version is what of a program a decision depends on: the filters of the layer, and
// what they refer to.
type version struct{ filters, objects uint64 }

// maxAsked callouts can have a part in a decision that is kept.
const maxAsked = 4

// asked is a callout that had a part in a decision, and when.
type asked struct {
	slot         *Slot
	registration uint64 // zero: nothing was registered
	since        fwps.Moment
}

// DefaultCacheSize is the number of decisions that a Cache has room for unless told
// otherwise. One takes about a kilobyte.
const DefaultCacheSize = 4096

// NewCache has room for at least so many decisions.
func NewCache(size int) *Cache {
	log := bits.Len(uint(max(size, setWays)-1) / setWays)
	return &Cache{sets: make([]set, 1<<log), shift: 64 - log}
}

// mark notes that a callout of a layer gives cacheable answers.
func (c *Cache) mark(l fwpm.LayerID) {
	if c != nil && !c.marked[l].Load() {
		c.marked[l].Store(true)
	}
}

func (c *Cache) set(hash uint64) *set { return &c.sets[hash>>c.shift] }

func tag(hash uint64) uint64 { return hash&0xffff | 1 }

const tagBits = 16

// find is the entry of a hash, for whatever inputs.
func (c *Cache) find(hash uint64, v version) *kept {
	s := c.set(hash)
	for hits := has(s.tags.Load(), hash); hits != 0; hits &= hits - 1 {
		if k := s.entries[bits.TrailingZeros64(hits)/tagBits%setWays].Load(); k != nil && k.hash == hash && k.version == v {
			return k
		}
	}
	return nil
}

// has has the high bit of each tag among four that is a hash's, and seldom of another.
func has(tags, hash uint64) uint64 {
	x := tags ^ tag(hash)*0x0001_0001_0001_0001
	return (x - 0x0001_0001_0001_0001) &^ x & 0x8000_8000_8000_8000
}

// again notes that a hash was missed, and reports whether it was before, not long ago.
func (c *Cache) again(hash uint64) bool {
	missed := &c.set(hash).missed
	tags := missed.Load()
	if has(tags, hash) != 0 {
		return true
	}
	missed.Store(tags<<tagBits | tag(hash))
	return false
}

// keep puts an entry in the place of one of the same hash, of one that is empty or
// of an older version, or of any.
func (c *Cache) keep(k *kept) {
	s := c.set(k.hash)
	at, stale := int(rand.Uint32()%setWays), false
	for i := range s.entries {
		old := s.entries[i].Load()
		if old != nil && old.hash == k.hash {
			at = i
			break
		}
		if !stale && (old == nil || old.in.Layer == k.in.Layer && old.version != k.version) {
			at, stale = i, true
		}
	}
	s.entries[at].Store(k)
	for shift := tagBits * at; ; {
		tags := s.tags.Load()
		if s.tags.CompareAndSwap(tags, tags&^(0xffff<<shift)|tag(k.hash)<<shift) {
			return
		}
	}
}
