package host

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// counters count classifications. Goroutines that classify at the same time have
// different Decisions, and count in the shard of theirs, so that they do not
// write to one cache line.
type counters struct {
	shards []shard
	shift  uint
}

type shard struct {
	layers [fwpm.NumLayers]layerCount
	_      [64]byte // one cache line between shards
}

// layerCount fills half a cache line.
type layerCount struct{ permit, block, veto, cached atomic.Uint64 }

func newCounters() *counters {
	c := &counters{shift: 64}
	n := 1
	for ; n < 4*runtime.GOMAXPROCS(0); n *= 2 {
		c.shift--
	}
	c.shards = make([]shard, n)
	return c
}

// shard is chosen by the address of the Decision, which is only a number here.
func (c *counters) shard(d *fwps.Decision) *shard {
	const golden = 0x9E3779B97F4A7C15 // spreads addresses that differ in few bits
	return &c.shards[uint64(uintptr(unsafe.Pointer(d)))*golden>>(c.shift&63)]
}

func (c *counters) count(l fwpm.LayerID, d *fwps.Decision) {
	if l >= fwpm.NumLayers { // What is no layer but less is counted and never read.
		return
	}
	n := &c.shard(d).layers[l]
	if d.Cached {
		n.cached.Add(1)
	}
	if d.Action == fwp.ActionPermit {
		n.permit.Add(1)
		return
	}
	n.block.Add(1)
	if d.Vetoed {
		n.veto.Add(1)
	}
}

// CacheHits is how many classifications of a layer were known already, since the
// engine began.
func (e *Engine) CacheHits(l fwpm.LayerID) (n uint64) {
	if !l.Valid() {
		return 0
	}
	for i := range e.stats.shards {
		n += e.stats.shards[i].layers[l].cached.Load()
	}
	return n
}

// LayerStatistics is FWPM_LAYER_STATISTICS of a layer, since the engine began.
func (e *Engine) LayerStatistics(l fwpm.LayerID) fwpm.LayerStatistics {
	s := fwpm.LayerStatistics{Layer: l}
	if !l.Valid() {
		return s
	}
	for i := range e.stats.shards {
		n := &e.stats.shards[i].layers[l]
		s.ClassifyPermitCount += n.permit.Load()
		s.ClassifyBlockCount += n.block.Load()
		s.ClassifyVetoCount += n.veto.Load()
	}
	return s
}
