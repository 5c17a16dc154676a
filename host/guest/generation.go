package guest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A source is what instances are made of.
type source struct {
	rt       wazero.Runtime // where it was compiled
	compiled wazero.CompiledModule
	config   []byte
	needs    uint32 // the capabilities of what it imports
	hears    bool   // it has callout_notify
	covered  *coverage
	counts   bool // what an instance does that is only tried is covered
}

func (s *source) close() {
	if s != nil {
		_ = s.compiled.Close(context.Background())
	}
}

// A generation is one version of a callout: a row of instances. Decisions that
// began on it finish on it.
type generation struct {
	m      *Module
	number uint64
	src    *source
	slots  []slot
	// assigned is the slot that whoever asks for the first time is sent to.
	assigned atomic.Uint32
	spares   chan *instance
	housed   chan *slot    // slots that are due for housekeeping
	wake     chan struct{} // a spare was taken
	stop     chan struct{}
	wg       sync.WaitGroup
}

// A slot holds an instance. Whoever has the lock owns the instance; padding
// keeps neighbours off its cache line.
type slot struct {
	mu     sync.Mutex
	g      *generation
	inst   *instance // nil: lost, or the generation is closed
	closed bool
	// What the slot did.
	decisions, slices uint64
	_                 [80]byte
}

// newGeneration starts the instances, after one that is only tried.
func newGeneration(m *Module, src *source, number uint64) (*generation, error) {
	g := &generation{m: m, number: number, src: src,
		slots: make([]slot, m.opts.Slots), spares: make(chan *instance, m.opts.Spares),
		housed: make(chan *slot, m.opts.Slots), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if err := m.try(src); err != nil {
		return nil, err
	}
	for k := range g.slots {
		i, err := m.start(src, number)
		if err != nil {
			g.close()
			return nil, fmt.Errorf("start: %w", briefly{err})
		}
		g.slots[k].g, g.slots[k].inst = g, i
	}
	g.wake <- struct{}{}
	g.wg.Go(g.background)
	return g, nil
}

// canned is what a new version is asked before it goes live: any answer will do.
var canned = fwps.Call{In: &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: fwps.ProtocolTCP,
	Remote: netip.MustParseAddrPort("192.0.2.1:1"), AppID: "/calloutd/self-test"}}

// try starts an instance, asks it, and throws it away.
func (m *Module) try(src *source) error {
	i, err := m.start(src, 0)
	if err != nil {
		return fmt.Errorf("start: %w", briefly{err})
	}
	defer i.close()
	if err := encode(i.block, &canned, m.rt.clock.read()); err != nil {
		return err
	}
	if _, err := i.ask(&canned, new(fwps.Verdict)); err != nil {
		if said, ok := errors.AsType[*guestError](err); ok {
			return &ConfigError{said.why, "self-test: guest error: "}
		}
		return fmt.Errorf("self-test: %w", briefly{err})
	}
	return nil
}

// slot is that of a hint, nil if there is none.
func (g *generation) slot(hint uint32) *slot {
	if at := hint - 1; at < uint32(len(g.slots)) {
		return &g.slots[at]
	}
	return nil
}

// search locks a slot that is free, else it waits for one.
func (g *generation) search(hint *uint32) *slot {
	n := uint32(len(g.slots))
	if *hint == 0 {
		*hint = g.assigned.Add(1)
	}
	first := (*hint - 1) % n // It may be of a callout that has more slots.
	for k := range n {
		at := (first + k) % n
		if s := &g.slots[at]; s.mu.TryLock() {
			*hint = at + 1
			return s
		}
	}
	s := &g.slots[first]
	s.mu.Lock()
	return s
}

// ready gives an empty slot a spare, or a new instance when the spares are gone
// too: a decision waits rather than being refused for the failure of another.
// The guest then hears of the filters it does not know.
func (g *generation) ready(s *slot) (err error) {
	if s.inst == nil {
		select {
		case s.inst = <-g.spares:
			signal(g.wake)
		default:
			if s.inst, err = g.m.start(g.src, g.number); err != nil {
				s.inst = nil
				return err
			}
		}
	}
	if s.inst.outdated() {
		return s.inst.tell()
	}
	return nil
}

// discard throws a failed instance away: its state cannot be trusted. A spare
// takes its place if there is one.
func (g *generation) discard(s *slot, err error) {
	g.m.replaced.Add(1)
	g.m.log.Printf("%v; its instance is replaced", &TrapError{g.m.name, err})
	s.inst.close()
	s.inst = nil
	select {
	case s.inst = <-g.spares:
	default:
	}
	signal(g.wake)
}

// close waits for decisions that run and ends the instances; later decisions
// find the slots closed. The source stays.
func (g *generation) close() {
	close(g.stop)
	g.wg.Wait()
	for k := range g.slots {
		s := &g.slots[k]
		s.mu.Lock()
		if s.closed = true; s.inst != nil {
			s.inst.close()
			s.inst = nil
		}
		g.m.past.decisions.Add(s.decisions)
		g.m.past.slices.Add(s.slices)
		s.decisions, s.slices = 0, 0
		s.mu.Unlock()
	}
	for {
		select {
		case i := <-g.spares:
			i.close()
		default:
			return
		}
	}
}
