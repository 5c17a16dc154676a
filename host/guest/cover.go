package guest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// Coverage is what of a guest's live version ran since it was loaded, in all its
// instances.
type Coverage struct {
	// Blocks are those of the module, Ran says which of them ran. Empty without
	// ModuleOptions.Cover.
	Blocks []meter.Block
	Ran    []bool
	// Counted is for each of ModuleOptions.Counters which of its counters are not
	// zero.
	Counted [][]bool
}

// A Counter is an array of 32-bit numbers that a guest counts in by itself.
type Counter struct {
	Export string // a function without parameters that returns where the array is
	Len    int
}

// coverage adds up what the instances of one version ran.
type coverage struct {
	blocks []meter.Block

	mu      sync.Mutex
	words   []uint32
	counted [][]bool
}

// probes are where an instance keeps what it ran.
type probes struct {
	of     *coverage // of its version; nil: what it runs does not count
	words  []api.Global
	arrays []uint32
}

// probe finds the probes of a new instance.
func (m *Module) probe(i *instance, src *source) error {
	// Of the self-test of a module that is loaded nobody said what it should do.
	if !i.trial || src.counts {
		i.probes.of = src.covered
	}
	for n := range (len(src.covered.blocks) + meter.CoverWord - 1) / meter.CoverWord {
		g := i.mod.ExportedGlobal(fmt.Sprint(meter.CoverPrefix, n))
		if g == nil {
			return errors.New("the covered module lost its counters")
		}
		i.probes.words = append(i.probes.words, g)
	}
	for _, c := range m.opts.Counters {
		if i.mod.ExportedFunction(c.Export) == nil {
			return fmt.Errorf("the module does not export %s", c.Export)
		}
		at, err := i.call(c.Export)
		if err != nil {
			return err
		}
		i.probes.arrays = append(i.probes.arrays, uint32(at))
	}
	return nil
}

// gather adds what an instance ran. Whoever calls it owns the instance.
func (c *coverage) gather(i *instance) {
	if len(i.probes.words)+len(i.probes.arrays) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.words == nil {
		c.words = make([]uint32, len(i.probes.words))
	}
	for n, g := range i.probes.words[:min(len(c.words), len(i.probes.words))] {
		c.words[n] |= uint32(g.Get())
	}
	for n, at := range i.probes.arrays {
		if n == len(c.counted) {
			c.counted = append(c.counted, make([]bool, i.m.opts.Counters[n].Len))
		}
		for k := range c.counted[n] {
			v, inside := i.mod.Memory().ReadUint32Le(at + uint32(4*k))
			c.counted[n][k] = c.counted[n][k] || inside && v != 0
		}
	}
}

// Coverage adds up what the instances ran. It waits for the decisions that run.
func (m *Module) Coverage() Coverage {
	if g := m.live.Load(); g != nil {
		for k := range g.slots {
			s := &g.slots[k]
			s.mu.Lock()
			if s.inst != nil && s.inst.probes.of != nil {
				s.inst.probes.of.gather(s.inst)
			}
			s.mu.Unlock()
		}
	}
	c := m.coverage.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Coverage{Blocks: c.blocks, Ran: make([]bool, len(c.blocks)), Counted: make([][]bool, len(m.opts.Counters))}
	for n := range out.Ran {
		if w := n / meter.CoverWord; w < len(c.words) {
			out.Ran[n] = c.words[w]>>(n%meter.CoverWord)&1 != 0
		}
	}
	for n := range out.Counted {
		out.Counted[n] = make([]bool, m.opts.Counters[n].Len)
		if n < len(c.counted) {
			copy(out.Counted[n], c.counted[n])
		}
	}
	return out
}

// Try does with another configuration what Load does: an error says why the guest
// does not take it. What ran counts as covered.
func (m *Module) Try(config []byte) error {
	g := m.live.Load()
	if g == nil {
		return &TrapError{m.name, ErrClosed}
	}
	src := *g.src
	src.config, src.counts = config, true
	return m.try(&src)
}
