package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwps"
)

var _ fwps.Callout = (*Module)(nil)

var errClosed = errors.New("the module is closed")

// A Module is a callout. It is a fwps.Callout.
type Module struct {
	name     string
	rt       *Runtime
	compiled wazero.CompiledModule
	opts     ModuleOptions
	log      limiter
	slots    []slot
	// hints remembers for each processor which slot it used last. Only the
	// hints are in the pool: instances must be closed, so none may be dropped.
	hints    sync.Pool
	assigned atomic.Uint32
	spares   chan *instance
	housed   chan *slot    // slots that are due for housekeeping
	wake     chan struct{} // a spare was taken
	stop     chan struct{}
	stopping sync.Once
	wg       sync.WaitGroup
	traps    atomic.Uint64
}

// A slot holds an instance. Whoever has the lock owns the instance; padding
// keeps neighbours off its cache line.
type slot struct {
	mu     sync.Mutex
	inst   *instance // nil: lost, or the module is closed
	closed bool
	_      [104]byte
}

// A hint is the index of the slot to try first.
type hint struct{ slot uint32 }

// A TrapError is a guest that failed; its instance is gone.
type TrapError struct {
	Module string
	Err    error
}

// Error leaves the stack trace of the guest out: it goes to people.
func (e *TrapError) Error() string {
	msg, _, _ := strings.Cut(e.Err.Error(), "\nwasm stack trace")
	return fmt.Sprintf("callout %q failed: %s", e.Module, msg)
}

func (e *TrapError) Unwrap() error { return e.Err }

// newModule starts the instances. It owns compiled, even when it fails.
func newModule(ctx context.Context, r *Runtime, name string, compiled wazero.CompiledModule, o ModuleOptions) (*Module, error) {
	m := &Module{name: name, rt: r, compiled: compiled, opts: o, log: limiter{logf: o.Logf},
		slots: make([]slot, o.Slots), spares: make(chan *instance, o.Spares),
		housed: make(chan *slot, o.Slots), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	m.hints.New = func() any { return &hint{m.assigned.Add(1) % uint32(len(m.slots))} }
	for i := range m.slots {
		inst, err := m.start()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start: %w", err), m.Close(ctx))
		}
		m.slots[i].inst = inst
	}
	m.wake <- struct{}{}
	m.wg.Go(m.background)
	return m, nil
}

// Classify asks the guest. It waits for no lock while another slot is free.
func (m *Module) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	h := m.hints.Get().(*hint)
	s := m.acquire(h)
	err := m.classify(s, c, v)
	s.mu.Unlock()
	m.hints.Put(h)
	if err != nil {
		v.Reset()
	}
	return err
}

// acquire locks a free slot, or waits for the one of the hint.
func (m *Module) acquire(h *hint) *slot {
	n := uint32(len(m.slots))
	for k := range n {
		at := h.slot + k
		if at >= n {
			at -= n
		}
		if s := &m.slots[at]; s.mu.TryLock() {
			h.slot = at
			return s
		}
	}
	s := &m.slots[h.slot]
	s.mu.Lock()
	return s
}

func (m *Module) classify(s *slot, c *fwps.Call, v *fwps.Verdict) error {
	if err := m.ready(s); err != nil {
		return &TrapError{m.name, err}
	}
	i := s.inst
	if err := encode(i.block, c); err != nil {
		return fmt.Errorf("callout %q was not asked: %w", m.name, err)
	}
	if err := i.ask(c, v); err != nil {
		m.discard(s, err)
		return &TrapError{m.name, err}
	}
	if i.calls++; i.calls >= idleEvery && i.idle != nil {
		m.due(s)
	}
	return nil
}

// ready gives an empty slot a spare, or a new instance when the spares are gone
// too: a decision waits rather than being refused for the failure of another.
func (m *Module) ready(s *slot) (err error) {
	if s.closed {
		return errClosed
	}
	if s.inst != nil {
		return nil
	}
	select {
	case s.inst = <-m.spares:
		signal(m.wake)
	default:
		s.inst, err = m.start()
	}
	return err
}

// discard throws a failed instance away: its state cannot be trusted. A spare
// takes its place if there is one.
func (m *Module) discard(s *slot, err error) {
	m.traps.Add(1)
	m.log.printf("%v; its instance is replaced", &TrapError{m.name, err})
	s.inst.close()
	s.inst = nil
	select {
	case s.inst = <-m.spares:
	default:
	}
	signal(m.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// due asks for housekeeping. If the queue is full the next decision asks again.
func (m *Module) due(s *slot) {
	select {
	case m.housed <- s:
		s.inst.calls = 0
	default:
	}
}

// background does what decisions must not wait for.
func (m *Module) background() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.wake:
			m.fill()
		case s := <-m.housed:
			m.housekeep(s)
		}
	}
}

// fill makes spares. Only the background goroutine adds any, so there is room.
func (m *Module) fill() {
	for len(m.spares) < cap(m.spares) {
		i, err := m.start()
		if err != nil {
			m.log.printf("callout %q: no spare instance: %v", m.name, err)
			return
		}
		m.spares <- i
	}
}

// housekeep lets the guest collect garbage: a Go guest that is never given the
// time keeps a collection open and its memory grows.
func (m *Module) housekeep(s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inst == nil {
		return
	}
	i := s.inst
	i.refill(m.opts.InitFuelSlices)
	if _, err := i.idle.Call(&i.ctx, 0); err != nil {
		m.discard(s, fmt.Errorf("housekeeping: %w", i.cause(err)))
	}
}

// Replaced is how many instances failed and were thrown away.
func (m *Module) Replaced() uint64 { return m.traps.Load() }

// Close waits for decisions that run and ends the module. Later ones fail.
func (m *Module) Close(ctx context.Context) error {
	m.stopping.Do(func() { close(m.stop) })
	m.wg.Wait()
	for k := range m.slots {
		m.slots[k].close()
	}
	for {
		select {
		case i := <-m.spares:
			i.close()
		default:
			return m.compiled.Close(ctx)
		}
	}
}

func (s *slot) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed = true; s.inst != nil {
		s.inst.close()
		s.inst = nil
	}
}

// A limiter passes at most logBurst lines each logEvery on: what guests print
// or do wrong must not fill a disk.
type limiter struct {
	logf func(string, ...any)
	mu   sync.Mutex
	from time.Time
	n    int
}

const (
	logBurst = 20
	logEvery = 10 * time.Second
)

func (l *limiter) printf(format string, args ...any) {
	if l.pass() {
		l.logf(format, args...)
	}
}

func (l *limiter) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.from) >= logEvery {
		l.from, l.n = now, 0
	}
	l.n++
	return l.n <= logBurst
}
