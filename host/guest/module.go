package guest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/oneline"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/loglimit"
)

var _ fwps.Callout = (*Module)(nil)

// A Module is a callout. It is a fwps.Callout, and safe for concurrent use.
type Module struct {
	name    string
	rt      *Runtime
	opts    ModuleOptions
	log     *loglimit.Log
	store   store
	metrics metrics
	filters filters
	notices notices
	hearing sync.Mutex // one event at a time, in their order
	sets    []*bart.Lite
	tables  []*bart.Table[int32]

	live       atomic.Pointer[generation] // nil: closed
	coverage   atomic.Pointer[coverage]   // of what is live, or was
	quarantine atomic.Pointer[QuarantineError]
	epoch      *fwps.Epoch // ends with what was live, and with what it was told
	turn       sync.Mutex  // a failure is of what is live, or of what was
	breaker    breaker
	pace       pace
	tripped    chan struct{}
	stop       chan struct{}
	wg         sync.WaitGroup

	mu    sync.Mutex       // one change of generations at a time
	good  *source          // of the version before, if it was good
	seen  *QuarantineError // the last that was dealt with
	count uint64           // generations so far

	failures, replaced, quarantines atomic.Uint64
	past                            struct{ decisions, slices atomic.Uint64 } // of closed generations
}

// newModule makes the first generation live.
func newModule(ctx context.Context, r *Runtime, name string, wasm []byte, o ModuleOptions) (*Module, error) {
	m := &Module{name: name, epoch: new(fwps.Epoch), rt: r, opts: o, log: loglimit.New(onOneLine(o.Logf)), notices: newNotices(), tripped: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		breaker: breaker{last: make([]time.Time, o.MaxFailures)}}
	for _, prefixes := range o.Sets {
		set := new(bart.Lite)
		for _, p := range prefixes {
			set.Insert(p)
		}
		m.sets = append(m.sets, set)
	}
	for _, rows := range o.Tables {
		table := new(bart.Table[int32])
		for _, row := range rows {
			if row.Value < 0 {
				return nil, fmt.Errorf("table row %v has the value %d, which is negative", row.Prefix, row.Value)
			}
			table.Insert(row.Prefix, row.Value)
		}
		m.tables = append(m.tables, table)
	}
	g, err := m.build(ctx, wasm, o.Config)
	if err != nil {
		return nil, err
	}
	m.live.Store(g)
	m.metrics.live.Store(g.number)
	m.coverage.Store(g.src.covered)
	m.wg.Go(m.watch)
	m.wg.Go(m.hearken)
	return m, nil
}

// onOneLine is logf for what a guest says, or is called: it forges no line, and moves no cursor.
func onOneLine(logf func(format string, args ...any)) func(format string, args ...any) {
	if logf == nil {
		return nil
	}
	return func(format string, args ...any) {
		for k, arg := range args {
			switch arg := arg.(type) {
			case string:
				args[k] = oneline.Clean(arg)
			case error:
				args[k] = oneline.Clean(arg.Error())
			}
		}
		logf(format, args...)
	}
}

// Classify asks the guest. It waits for no lock while another slot is free.
func (m *Module) Classify(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
	var j *journal.Journal
	if m.opts.Journals {
		j = journal.From(ctx)
	}
	if c == nil || c.In == nil {
		return fmt.Errorf("callout %q was not asked: a fwps.Call says nothing without In, which is required", m.name)
	}
	since := m.epoch.Now()
	s, err := m.acquire(&v.Hint)
	if err == nil {
		err = m.classify(s, j, c, v)
		s.mu.Unlock()
	}
	if err != nil {
		return m.failure(ctx, err, v)
	}
	if v.Cacheable {
		v.Since = since
	}
	return nil
}

// failure is the answer where there is none.
func (m *Module) failure(ctx context.Context, err error, v *fwps.Verdict) error {
	if faulty(err) {
		m.slow(ctx.Done())
	}
	v.Reset()
	if m.opts.OnFailure != FailContinue {
		return err
	}
	v.Action, v.Reason = fwp.ActionContinue, "on failure continue: "+err.Error()
	return nil
}

// acquire locks a slot of what is live: that of the hint if it is free, as it is for
// whoever asks again and again, else another one, else it waits. The hint, which is 0
// at first, is kept with the verdict: what one goroutine uses again no other one uses
// meanwhile, so that nothing is shared to know it.
func (m *Module) acquire(hint *uint32) (*slot, error) {
	for {
		g := m.live.Load()
		if g == nil {
			return nil, &TrapError{m.name, ErrClosed}
		}
		s := g.slot(*hint)
		if s == nil || !s.mu.TryLock() {
			s = g.search(hint)
		}
		if s.closed { // Another generation is live by now.
			s.mu.Unlock()
			continue
		}
		if q := m.quarantine.Load(); q != nil { // It may have begun while this one waited.
			s.mu.Unlock()
			return nil, q
		}
		return s, nil
	}
}

// classify decides on a slot, which is locked.
func (m *Module) classify(s *slot, j *journal.Journal, c *fwps.Call, v *fwps.Verdict) error {
	i := s.inst
	if i == nil || i.outdated() {
		if err := s.g.ready(s); err != nil {
			return m.failed(s, err)
		}
		i = s.inst
	}
	now := m.rt.clock.read()
	if j != nil {
		now = m.journaled(j, now)
	}
	if err := encode(i.block, c, now); err != nil {
		return fmt.Errorf("callout %q was not asked: %w", m.name, err)
	}
	var slices uint64
	var err error
	if j == nil && !m.opts.TriesOut {
		slices, err = i.ask(c, v)
	} else {
		slices, err = i.answer(j, c, v)
	}
	if err != nil {
		return m.failed(s, err)
	}
	// What the answer asks for beyond itself waits until it is not refused any more: the
	// instance of one that is goes, and its cookie means nothing then.
	if c.In.Flow != nil {
		i.associate(c)
	}
	if i.notify != nil {
		i.observe(c, v)
	}
	s.decisions++
	s.slices += slices
	if i.calls++; i.calls >= idleEvery && i.idle != nil {
		s.g.due(s)
	}
	return nil
}

// failed is a decision that failed.
func (m *Module) failed(s *slot, err error) error {
	m.failures.Add(1)
	return m.lost(s, err)
}

// lost replaces the instance, and puts the callout in quarantine when it was one
// failure too many, whatever the guest failed at.
func (m *Module) lost(s *slot, err error) error {
	g := s.g
	trap := &TrapError{m.name, err}
	if s.inst != nil {
		g.discard(s, err)
	}
	if m.trip(g, trap) {
		m.epoch.End()
		m.quarantines.Add(1)
		signal(m.tripped)
	}
	return trap
}

// trip reports whether a failure begins a quarantine. One of a version that is live no
// more, where decisions end that began on it, does not count against the next.
func (m *Module) trip(g *generation, failure error) bool {
	m.turn.Lock()
	defer m.turn.Unlock()
	return m.live.Load() == g && m.breaker.fail(time.Now()) && m.quarantine.CompareAndSwap(nil, &QuarantineError{m.name, m.opts.MaxFailures, failure})
}

// Stats reads the figures. It waits for the decisions that run.
func (m *Module) Stats() Stats {
	st := Stats{Failures: m.failures.Load(), Replaced: m.replaced.Load(), Quarantines: m.quarantines.Load(),
		Decisions: m.past.decisions.Load(), Slices: m.past.slices.Load(), Metrics: m.metrics.read(), EventsDropped: m.notices.dropped.Load()}
	if q := m.quarantine.Load(); q != nil {
		st.Quarantined = q.Error()
	}
	g := m.live.Load()
	if g == nil {
		return st
	}
	st.Generation = g.number
	for k := range g.slots {
		s := &g.slots[k]
		s.mu.Lock()
		st.Decisions += s.decisions
		st.Slices += s.slices
		if s.inst != nil {
			st.Memory += uint64(s.inst.mod.Memory().Size())
		}
		s.mu.Unlock()
	}
	return st
}

// Close waits for decisions that run and ends the module. Later ones fail.
func (m *Module) Close(context.Context) error {
	m.mu.Lock()
	if g := m.live.Swap(nil); g != nil {
		m.epoch.End()
		close(m.stop)
		g.close()
		g.src.close()
		m.good.close()
	}
	m.mu.Unlock()
	m.wg.Wait()
	m.log.Close()
	m.rt.forget(m)
	return nil
}
