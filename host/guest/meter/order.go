package meter

import "slices"

// largeBody is from how many bytes on a function in a circle is one that closes
// it: as a rule it pays for itself anyway.
const largeBody = 2048

// A callOrder is one in which every circle of calls is broken at functions that pay
// for themselves: what is left can be paid for by whoever calls it.
type callOrder struct {
	// up lists the functions with bodies, callees before callers, but for callees
	// that close a circle.
	up []uint32
	// again are the functions that close circles: every circle has one.
	again []bool
	// left is when the walk was done with a node: what a type can reach was seen if
	// that was before.
	left []int
}

// An ordering is a walk through a graph, callees first.
type ordering struct {
	callOrder
	g               *graph
	imported, funcs uint32
	path            []visit
	behind          []bool
	count           int
	hosted          []uint32 // ends of edges that close circles through nothing that has a body
}

func newOrder(g *graph, bodies []reader, imported uint32) callOrder {
	o := ordering{g: g, imported: imported, funcs: uint32(len(g.cyclic)), behind: make([]bool, len(g.edges))}
	o.again, o.left = make([]bool, len(g.cyclic)), make([]int, len(g.edges))
	for k := range bodies {
		f := imported + uint32(k)
		o.again[f] = g.cyclic[f] && bodies[k].end-bodies[k].off >= largeBody
	}
	large := append([]bool(nil), o.again...)
	for root := range uint32(len(g.edges)) {
		o.enter(root)
		for len(o.path) > 0 {
			o.step(large)
		}
	}
	o.closeHosted()
	return o.callOrder
}

func (o *ordering) enter(v uint32) {
	if o.left[v] == 0 && !o.behind[v] {
		o.path, o.behind[v] = append(o.path, visit{v, 0}), true
	}
}

func (o *ordering) step(large []bool) {
	p := &o.path[len(o.path)-1]
	v := p.node
	if p.next == len(o.g.edges[v]) {
		o.leave(v)
		return
	}
	w := o.g.edges[v][p.next]
	p.next++
	switch {
	case w < o.funcs && large[w]: // It pays, whenever it comes.
	case o.behind[w]:
		o.back(v, w)
	default:
		o.enter(w)
	}
}

func (o *ordering) leave(v uint32) {
	o.path, o.behind[v] = o.path[:len(o.path)-1], false
	o.count++
	o.left[v] = o.count
	if o.hasBody(v) {
		o.up = append(o.up, v)
	}
}

func (o *ordering) hasBody(v uint32) bool { return v >= o.imported && v < o.funcs }

// back notes an edge that closes a circle, at the end that is a function with a
// body. Where none is, the circle goes through the host, or a table that the host
// fills.
func (o *ordering) back(v, w uint32) {
	switch {
	case o.hasBody(w):
		o.again[w] = true
	case o.hasBody(v):
		o.again[v] = true
	default:
		o.hosted = append(o.hosted, v)
	}
}

// closeHosted has everybody close a circle who gets to where one goes through the host.
func (o *ordering) closeHosted() {
	if len(o.hosted) == 0 {
		return
	}
	leads := o.leadsTo(o.hosted)
	for f := o.imported; f < o.funcs; f++ {
		o.again[f] = o.again[f] || o.g.cyclic[f] && slices.ContainsFunc(o.g.edges[f], func(n uint32) bool { return leads[n] })
	}
}

// leadsTo is those of to with what leads to them through nothing that has a body.
func (o *ordering) leadsTo(to []uint32) []bool {
	from := make([][]uint32, len(o.g.edges))
	for n := range uint32(len(o.g.edges)) {
		if o.hasBody(n) {
			continue
		}
		for _, next := range o.g.edges[n] {
			from[next] = append(from[next], n)
		}
	}
	in := make([]bool, len(o.g.edges))
	for todo := to; len(todo) > 0; {
		n := todo[len(todo)-1]
		if todo = todo[:len(todo)-1]; !in[n] {
			in[n] = true
			todo = append(todo, from[n]...)
		}
	}
	return in
}
