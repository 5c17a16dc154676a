package storetest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/redirect"
)

// The model is a map; the store answers as it does, whatever is asked.
type model struct {
	store redirect.Store
	hops  map[uint64]*modelHop
	limit int
}

type modelHop struct {
	hop  *redirect.Hop
	refs int
}

// Model checks a store against a map. open makes an empty one for limit hops, which may
// have a limit of memory besides. again, unless it is nil, closes a store and opens what it
// kept, in which each hop has one holder. Where a store has a Check, it holds after each step.
func Model(t *testing.T, open func(limit int) redirect.Store, again func(redirect.Store) redirect.Store) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{hops: map[uint64]*modelHop{}, limit: rapid.SampledFrom([]int{10, 1000}).Draw(t, "limit")}
		m.store = open(m.limit)
		actions := m.actions()
		if again != nil {
			actions["close and open"] = func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "not now") > 0 { // It takes as long as all else.
					return
				}
				m.store = again(m.store)
				for _, h := range m.hops {
					h.refs = 1
				}
			}
		}
		t.Repeat(actions)
		for n, e := range m.hops {
			got, err := m.store.Acquire(n)
			require.NoError(t, err)
			require.Equal(t, e.hop, got)
		}
		if again != nil {
			again(m.store)
		}
	})
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"put": func(t *rapid.T) { m.put(t, drawHop(t, serial(t))) },
		"put many": func(t *rapid.T) {
			h := drawHop(t, 0)
			for i := range rapid.Uint64Range(1, 200).Draw(t, "n") {
				h := *h
				h.Serial = i
				m.put(t, &h)
			}
		},
		"replace": func(t *rapid.T) { m.replace(t, drawHop(t, serial(t))) },
		"acquire": func(t *rapid.T) {
			n := serial(t)
			got, err := m.store.Acquire(n)
			require.Equal(t, m.known(n), err)
			if e := m.hops[n]; e != nil {
				require.Equal(t, e.hop, got)
				e.refs++
			}
		},
		"retain": func(t *rapid.T) {
			n := serial(t)
			require.Equal(t, m.known(n), m.store.Retain(n))
			if e := m.hops[n]; e != nil {
				e.refs++
			}
		},
		"release": func(t *rapid.T) { m.release(t, serial(t)) },
		"release many": func(t *rapid.T) {
			from := serial(t)
			for i := range rapid.Uint64Range(1, 200).Draw(t, "n") {
				m.release(t, from+i)
			}
		},
		"": func(t *rapid.T) {
			require.Equal(t, len(m.hops), m.store.Len())
			if s, ok := m.store.(interface{ Check() error }); ok {
				require.NoError(t, s.Check())
			}
		},
	}
}

func drawHop(t *rapid.T, serial uint64) *redirect.Hop {
	// Few sizes: slabs fill up and are emptied.
	size := rapid.SampledFrom([]int{1, 2, 400, 401, 3000, redirect.MaxBlob}).Draw(t, "size")
	h := &redirect.Hop{Serial: serial, FilterID: rapid.Uint64().Draw(t, "filter"), AppID: rapid.StringN(0, 20, -1).Draw(t, "app"), Record: make([]byte, size)}
	for i := range h.Record {
		h.Record[i] = byte(h.FilterID) + byte(i)
	}
	return h
}

// serial draws few numbers, so that most are on record.
func serial(t *rapid.T) uint64 { return rapid.Uint64Range(0, 400).Draw(t, "serial") }

func (m *model) known(serial uint64) error {
	if m.hops[serial] == nil {
		return redirect.ErrNotFound
	}
	return nil
}

func (m *model) put(t *rapid.T, h *redirect.Hop) {
	err := m.store.Put(h)
	switch {
	case len(m.hops) >= m.limit:
		require.ErrorIs(t, err, redirect.ErrFull)
		require.ErrorContains(t, err, "raise the limit")
	case noMemory(t, err): // It may be so before it is known that the serial is on record.
	case m.hops[h.Serial] != nil:
		require.ErrorIs(t, err, redirect.ErrExists)
	default:
		require.NoError(t, err)
		m.hops[h.Serial] = &modelHop{h, 1}
	}
}

func (m *model) replace(t *rapid.T, h *redirect.Hop) {
	err := m.store.Replace(h)
	e := m.hops[h.Serial]
	if e != nil && noMemory(t, err) {
		return
	}
	require.Equal(t, m.known(h.Serial), err)
	if e != nil {
		e.hop = h
	}
}

// noMemory says that a hop was refused for the limit of memory.
func noMemory(t *rapid.T, err error) bool {
	if err == nil || !errors.Is(err, redirect.ErrFull) {
		return false
	}
	require.ErrorContains(t, err, "raise the limit of memory")
	return true
}

func (m *model) release(t *rapid.T, serial uint64) {
	require.Equal(t, m.known(serial), m.store.Release(serial))
	if h := m.hops[serial]; h != nil {
		if h.refs--; h.refs == 0 {
			delete(m.hops, serial)
		}
	}
}
