package guest

import (
	"context"
	"fmt"
)

// build compiles a version and starts it.
func (m *Module) build(ctx context.Context, wasm, config []byte) (*generation, error) {
	src, err := m.rt.compile(ctx, wasm, m.opts.form())
	if err != nil {
		return nil, err
	}
	src.config = config
	g, err := newGeneration(m, src, m.count+1)
	switch {
	case err != nil:
		err = as(ErrSelfTest, err)
	case ctx.Err() != nil: // Nobody wants it any more.
		g.close()
		err = context.Cause(ctx)
	default:
		m.count++
		return g, nil
	}
	src.close()
	return nil, err
}

// Reload makes another version live, or the same with another configuration,
// when it compiles, starts and passes its self-test; else all stays as it is.
// No decision is lost, and those that run finish on the version they began on.
// It ends a quarantine.
func (m *Module) Reload(ctx context.Context, wasm, config []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.live.Load()
	if old == nil {
		return &TrapError{m.name, ErrClosed}
	}
	g, err := m.build(ctx, wasm, config)
	if err != nil {
		return fmt.Errorf("callout module %q: %w", m.name, err)
	}
	if m.swap(g) {
		m.good.close()
		m.good = old.src
	} else {
		old.src.close()
	}
	m.opts.OnEvent(Event{EventReloaded, m.name, g.number, nil})
	return nil
}

// swap makes g live, and reports whether the other one, which finishes its decisions, was good.
func (m *Module) swap(g *generation) (good bool) {
	m.turn.Lock()
	old := m.live.Swap(g)
	m.metrics.live.Store(g.number)
	m.coverage.Store(g.src.covered)
	m.breaker.reset()
	good = m.quarantine.Swap(nil) == nil
	m.turn.Unlock()
	m.epoch.End()
	old.close()
	return good
}

// watch brings the last good version back after a quarantine began.
func (m *Module) watch() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.tripped:
			m.restore()
		}
	}
}

func (m *Module) restore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	bad, q := m.live.Load(), m.quarantine.Load()
	if bad == nil || q == nil || q == m.seen { // It was closed or reloaded meanwhile.
		return
	}
	m.seen = q
	m.opts.OnEvent(Event{EventQuarantined, m.name, bad.number, q})
	if m.good == nil {
		return
	}
	g, err := newGeneration(m, m.good, m.count+1)
	if err != nil {
		m.log.Printf("callout %q: the version before does not start: %v", m.name, err)
		return
	}
	m.count++
	m.good = nil
	m.swap(g)
	bad.src.close()
	m.opts.OnEvent(Event{EventRestored, m.name, g.number, q.Last})
}
