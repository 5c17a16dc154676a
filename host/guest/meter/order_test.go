package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// calls is some graph as newGraph makes it: functions, imported ones first, then
// types, then everything outside.
func calls(t *rapid.T) (g *graph, bodies []reader, imported uint32) {
	imported = rapid.Uint32Range(0, 3).Draw(t, "imported")
	funcs := imported + rapid.Uint32Range(1, 12).Draw(t, "bodies")
	types := rapid.Uint32Range(1, 3).Draw(t, "types")
	outside := funcs + types
	g = &graph{edges: make([][]uint32, outside+1), cyclic: make([]bool, funcs)}
	targets := func(from, to uint32) []uint32 {
		return rapid.SliceOfNDistinct(rapid.Uint32Range(from, to), 0, 3, rapid.ID).Draw(t, "edges")
	}
	for f := range funcs {
		g.edges[f] = []uint32{outside}
		if f >= imported {
			g.edges[f] = targets(0, outside-1)
		}
	}
	open := rapid.Bool().Draw(t, "open")
	for n := funcs; n <= outside; n++ {
		g.edges[n] = targets(0, funcs-1)
		if open && n < outside {
			g.edges[n] = append(g.edges[n], outside)
		}
	}
	g.components(funcs)
	for range funcs - imported {
		bodies = append(bodies, reader{end: rapid.SampledFrom([]int{1, largeBody}).Draw(t, "size")})
	}
	return g, bodies, imported
}

// What a function calls was seen before it, or pays for itself; so no circle goes
// without a payment.
func TestCalleesComeFirstOrCloseACircle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, bodies, imported := calls(t)
		o, funcs := newOrder(g, bodies, imported), uint32(len(g.cyclic))
		require.Len(t, o.up, len(bodies), "every function once")
		require.Subset(t, o.up, seq(imported, funcs))
		for f := imported; f < funcs; f++ {
			require.False(t, o.again[f] && !g.cyclic[f], "function %d closes a circle and is in none", f)
			for _, to := range g.edges[f] {
				if to >= imported && to < funcs && !o.again[to] {
					require.True(t, o.left[to] < o.left[f] || o.again[f] && to == f, "function %d calls %d", f, to)
				}
			}
		}
		for n := range g.edges {
			require.False(t, circle(g, o, uint32(n), imported, funcs), "a circle through %d has nobody who pays", n)
		}
	})
}

func seq(from, to uint32) (out []uint32) {
	for ; from < to; from++ {
		out = append(out, from)
	}
	return out
}

// circle reports whether a circle goes through n and through a function with a
// body, and none of its functions closes it.
func circle(g *graph, o callOrder, n, imported, funcs uint32) bool {
	if n < imported || n >= funcs || o.again[n] {
		return false
	}
	seen, todo := map[uint32]bool{}, []uint32{n}
	for len(todo) > 0 {
		v := todo[0]
		todo = todo[1:]
		for _, w := range g.edges[v] {
			if w == n {
				return true
			}
			if !seen[w] && !(w < funcs && o.again[w]) {
				seen[w], todo = true, append(todo, w)
			}
		}
	}
	return false
}

// A module that imports much and puts all of it into a table is rewritten at once: its
// circles all go through the host.
func TestManyImportsInATable(t *testing.T) {
	const n = 100_000
	m := &module{imported: n, funcs: make([]uint32, n), types: make([]signature, 1)}
	for i := range uint32(n) {
		m.refs = append(m.refs, i, i)
	}
	done := make(chan *graph)
	go func() { done <- newGraph(m, nil, new(function)) }()
	select {
	case g := <-done:
		require.Len(t, g.edges[n], n, "each once")
	case <-time.After(time.Minute):
		t.Fatal("still at it after a minute; it takes milliseconds")
	}
}
