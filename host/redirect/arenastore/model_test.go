package arenastore_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
)

// The model is a map; the store answers as it does, whatever is asked.
type model struct {
	store *arenastore.Store
	hops  map[uint64]*modelHop
	limit int
}

type modelHop struct {
	hop  *redirect.Hop
	refs int
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
	case m.hops[h.Serial] != nil:
		require.ErrorIs(t, err, redirect.ErrExists)
	default:
		require.NoError(t, err)
		m.hops[h.Serial] = &modelHop{h, 1}
	}
}

func (m *model) release(t *rapid.T, serial uint64) {
	last, err := m.store.Drop(serial)
	require.Equal(t, m.known(serial), err)
	if h := m.hops[serial]; h != nil {
		h.refs--
		require.Equal(t, h.refs == 0, last)
		if last {
			delete(m.hops, serial)
		}
	}
}

func TestTheStoreIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{hops: map[uint64]*modelHop{}, limit: rapid.SampledFrom([]int{10, 1000}).Draw(t, "limit")}
		m.store = arenastore.New(arenastore.Options{MaxHops: m.limit})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { m.put(t, drawHop(t, serial(t))) },
			"put many": func(t *rapid.T) {
				h := drawHop(t, 0)
				for i := range rapid.Uint64Range(1, 200).Draw(t, "n") {
					h := *h
					h.Serial = i
					m.put(t, &h)
				}
			},
			"replace": func(t *rapid.T) {
				h := drawHop(t, serial(t))
				require.Equal(t, m.known(h.Serial), m.store.Replace(h))
				if e := m.hops[h.Serial]; e != nil {
					e.hop = h
				}
			},
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
				require.NoError(t, m.store.Check())
			},
		})
		for n, e := range m.hops {
			got, err := m.store.Acquire(n)
			require.NoError(t, err)
			require.Equal(t, e.hop, got)
		}
	})
}
