package guest

import (
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/sdk/abi"
)

// Limits of a callout's own counters.
const (
	maxMetrics    = 64
	maxMetricName = 64
)

// metrics are counters that a guest names.
type metrics struct {
	mu     sync.RWMutex
	byName map[string]*atomic.Int64
}

func (m *metrics) add(name []byte, delta int64) int64 {
	m.mu.RLock()
	c := m.byName[string(name)]
	m.mu.RUnlock()
	if c == nil {
		if c = m.create(string(name)); c == nil {
			return abi.ErrFull
		}
	}
	c.Add(delta)
	return 0
}

func (m *metrics) create(name string) *atomic.Int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.byName[name]; c != nil {
		return c
	}
	if len(m.byName) >= maxMetrics {
		return nil
	}
	if m.byName == nil {
		m.byName = map[string]*atomic.Int64{}
	}
	m.byName[name] = new(atomic.Int64)
	return m.byName[name]
}

func (m *metrics) read() map[string]int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := map[string]int64{}
	for name, c := range m.byName {
		out[name] = c.Load()
	}
	return out
}

// Stats are the figures of a callout since it was loaded.
type Stats struct {
	Decisions uint64 // answered by the guest
	Slices    uint64 // fuel that they took, in started slices of meter.SliceFuel
	Failures  uint64 // decisions that the guest failed
	Replaced  uint64 // instances that were thrown away
	Memory    uint64 // bytes of the guests' memories, those of spares left out
	// Generation counts the versions that were live, this one included.
	Generation  uint64
	Quarantines uint64
	Quarantined string // why the callout is in quarantine, empty if it is not
	// EventsDropped are those that found too many others waiting for the guest.
	EventsDropped uint64
	Metrics       map[string]int64
}
