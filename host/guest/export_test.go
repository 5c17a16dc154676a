package guest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Unguarded makes o one for a guest that runs without fuel, as a floor for
// benchmarks.
func Unguarded(o ModuleOptions) ModuleOptions {
	o.unguarded = true
	return o
}

// Unpaced makes o one for a guest whose failures follow each other at once.
func Unpaced(o ModuleOptions) ModuleOptions {
	o.unpaced = true
	return o
}

// Hasty makes o one for slots that are idle after a millisecond.
func Hasty(o ModuleOptions) ModuleOptions {
	o.idleAfter = time.Millisecond
	return o
}

// Housekept reports whether a slot that was asked something got time since.
func Housekept(m *Module) bool {
	s := &m.live.Load().slots[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decisions > 0 && s.inst.calls == 0
}

// MaxNotices is how many events wait for a guest.
const MaxNotices = maxNotices

// Deafen keeps events from being delivered until hears is called.
func Deafen(m *Module) (hears func()) {
	m.hearing.Lock()
	return m.hearing.Unlock
}

// FailLate has a decision that began before a reload fail so often after it.
func FailLate(m *Module, times int, reload func()) {
	g := m.live.Load()
	s := &g.slots[0]
	s.mu.Lock()
	over := make(chan struct{})
	go func() { defer close(over); reload() }()
	for m.live.Load() == g {
		runtime.Gosched()
	}
	for range times {
		_ = m.failed(s, errors.New("late"))
	}
	s.mu.Unlock()
	<-over
}

// Reloads makes versions live one after the other, of which each is asked while nobody can look
// at how the one before did.
func Reloads(m *Module, ask func(), wasm ...[]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ask()
	for len(m.tripped) > 0 { // Somebody waits to look.
		runtime.Gosched()
	}
	for _, w := range wasm {
		g, err := m.build(context.Background(), w, nil)
		if err != nil {
			return err
		}
		old := m.live.Load().src
		m.swap(g)
		old.close()
		ask()
	}
	return nil
}

// FillMetrics leaves no place for another figure of the version that is live.
func FillMetrics(m *Module) {
	for n := 0; m.metrics.add(fmt.Appendf(nil, "figure %02d", n), 1, m.live.Load().number) == 0; n++ {
	}
}

// CacheVersion is the folder in a cache in which a Runtime of this program keeps what it compiled.
var CacheVersion = cacheVersion

// VersionOfSource is that of wazero by the path of its source.
var VersionOfSource = versionOfSource

// WorkIn makes a folder to work in.
var WorkIn = workIn

// TrimFolder trims a cache in which a version is in use.
var TrimFolder = trimFolder

// Kept reports whether a Runtime has a module, guarded, in its cache.
func Kept(r *Runtime, wasm []byte) bool { return r.kept.get(r.kept.key(r.pages, guarded, wasm)) != nil }
