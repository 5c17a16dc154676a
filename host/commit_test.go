package host_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/load"
)

// BFE-TXN-04: whatever transactions added and deleted, aborted ones among them,
// the engine decides as one that is given the whole policy at once.
func TestCommitsAddUpToThePolicy(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	g := load.New(3, layer, 500)
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	dynamic := open(t, e, host.SessionOptions{Dynamic: true})
	for i := range 3 {
		_, err := s.SublayerAdd(fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint("s", i)), Name: "s", Weight: uint16(i)})
		require.NoError(t, err)
	}
	ids, id := map[fwpm.FilterID]*host.Session{}, 0
	for round := range 60 {
		by := []*host.Session{s, dynamic}[round%2]
		require.NoError(t, by.Begin(0))
		was := len(ids)
		changed := map[fwpm.FilterID]*host.Session{}
		for range 1 + r.IntN(30) {
			id++
			f := g.Filter(id)
			add(t, by, f)
			changed[f.ID] = by
		}
		for old, owner := range ids {
			if owner == by && r.IntN(4) == 0 {
				require.NoError(t, by.FilterDelete(old))
				changed[old] = nil
			}
		}
		if round%7 == 3 {
			require.NoError(t, by.Abort())
			require.Len(t, e.Policy().Filters, was)
			continue
		}
		require.NoError(t, by.Commit())
		for id, owner := range changed {
			if ids[id] = owner; owner == nil {
				delete(ids, id)
			}
		}
		if round%10 == 9 {
			alike(t, e, g)
		}
	}
	dynamic.Close()
	alike(t, e, g)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Sublayers[0].Weight, p.Filters = 9, p.Filters[:len(p.Filters)/2]
		return nil
	}))
	alike(t, e, g)
}

// alike compares an engine with a new one that is given its policy.
func alike(t *testing.T, e *host.Engine, g *load.Load) {
	t.Helper()
	p := e.Policy()
	fresh := host.New(host.Options{})
	require.NoError(t, fresh.Update(func(q *fwpm.Policy) error {
		*q = *p
		return nil
	}))
	want, got := new(fwps.Decision), new(fwps.Decision)
	for _, in := range g.Connections(p, 300) {
		fresh.Classify(t.Context(), &in, want)
		e.Classify(t.Context(), &in, got)
		require.Equal(t, want.Action, got.Action)
		require.Equal(t, want.Steps, got.Steps)
	}
}
