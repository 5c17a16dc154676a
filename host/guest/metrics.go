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

// metrics are counters that a guest names. What the live version has used stays.
type metrics struct {
	live   atomic.Uint64 // the number of the generation
	mu     sync.RWMutex
	byName map[string]*counter
}

// A counter knows the latest generation that used it.
type counter struct {
	n    atomic.Int64
	used atomic.Uint64
}

func (c *counter) add(delta int64, generation uint64) {
	c.n.Add(delta)
	if used := c.used.Load(); used < generation {
		c.used.CompareAndSwap(used, generation)
	}
}

func (m *metrics) add(name []byte, delta int64, generation uint64) int64 {
	m.mu.RLock()
	c := m.byName[string(name)]
	if c != nil {
		c.add(delta, generation)
	}
	m.mu.RUnlock()
	if c == nil && !m.addNew(string(name), delta, generation) {
		return abi.ErrFull
	}
	return 0
}

func (m *metrics) addNew(name string, delta int64, generation uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.byName[name]
	if c == nil {
		if len(m.byName) >= maxMetrics && !m.makeRoom(generation) {
			return false
		}
		if m.byName == nil {
			m.byName = map[string]*counter{}
		}
		c = new(counter)
		m.byName[name] = c
	}
	c.add(delta, generation)
	return true
}

// makeRoom forgets what only versions before used, the oldest first, for the one that is live.
func (m *metrics) makeRoom(generation uint64) bool {
	oldest := generation
	var name string
	for n, c := range m.byName {
		if used := c.used.Load(); used < oldest || used == oldest && n < name {
			oldest, name = used, n
		}
	}
	if generation != m.live.Load() || oldest == generation {
		return false
	}
	delete(m.byName, name)
	return true
}

func (m *metrics) read() map[string]int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := map[string]int64{}
	for name, c := range m.byName {
		out[name] = c.n.Load()
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
	// Metrics are what the guest counts, whichever version. There are 64: a name that the live
	// one has not used goes when it needs the place, and begins anew if it comes back.
	Metrics map[string]int64
}
