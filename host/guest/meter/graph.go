package meter

// A graph says who may call whom. Its nodes are the functions, then the types
// (a call_indirect may reach every function of its type that a table can hold),
// then everything outside: a host may call what is exported.
type graph struct {
	edges  [][]uint32
	cyclic []bool // functions that may be entered again before they return
	callOrder
}

func newGraph(m *module, bodies []reader, f *function) *graph {
	nf, nt := uint32(len(m.funcs)), uint32(len(m.types))
	outside := nf + nt
	g := &graph{edges: make([][]uint32, outside+1), cyclic: make([]bool, nf)}
	for k := range bodies {
		r := bodies[k]
		index := uint32(m.imported + k)
		f.decode(m, index, &r)
		g.edges[index] = f.callees(nf)
	}
	for i := range m.imported {
		g.edges[i] = []uint32{outside}
	}
	seen := make([]bool, nf)
	for _, list := range [][]uint32{m.refs, m.exported} {
		for _, i := range list {
			if seen[i] {
				continue
			}
			seen[i] = true
			same := nf + m.types[m.funcs[i]].same
			g.edges[same] = append(g.edges[same], i)
			g.edges[outside] = append(g.edges[outside], i)
		}
	}
	if m.open {
		for t := range nt {
			g.edges[nf+t] = append(g.edges[nf+t], outside)
		}
	}
	g.components(nf)
	g.callOrder = newOrder(g, bodies, uint32(m.imported))
	return g
}

// callees also notes which functions the body takes references to.
func (f *function) callees(types uint32) []uint32 {
	var out []uint32
	seen := map[uint32]bool{}
	add := func(n uint32) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	for k := range f.code {
		switch i := &f.code[k]; i.op {
		case opCall:
			add(i.n)
		case opCallIndirect:
			add(types + f.m.types[i.n].same)
		case opRefFunc:
			f.m.refs = append(f.m.refs, i.n)
		}
	}
	return out
}

// A visit is a node on the way of a walk: next is the edge to follow.
type visit struct {
	node uint32
	next int
}

// components finds the strongly connected ones (Tarjan), without recursion: the
// depth of the graph is the module's choice.
func (g *graph) components(funcs uint32) {
	n := len(g.edges)
	low, num, on := make([]int, n), make([]int, n), make([]bool, n)
	var stack []uint32
	var path []visit
	count := 0
	enter := func(v uint32) {
		count++
		num[v], low[v], on[v] = count, count, true
		stack = append(stack, v)
		path = append(path, visit{v, 0})
	}
	for root := range uint32(n) {
		if num[root] == 0 {
			enter(root)
		}
		for len(path) > 0 {
			p := &path[len(path)-1]
			v := p.node
			if p.next < len(g.edges[v]) {
				w := g.edges[v][p.next]
				p.next++
				if num[w] == 0 {
					enter(w)
				} else if on[w] {
					low[v] = min(low[v], num[w])
				}
				if w == v && v < funcs {
					g.cyclic[v] = true
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1].node
				low[up] = min(low[up], low[v])
			}
			if low[v] == num[v] {
				stack = g.pop(stack, v, on, funcs)
			}
		}
	}
}

// pop takes the component of v off the stack.
func (g *graph) pop(stack []uint32, v uint32, on []bool, funcs uint32) []uint32 {
	at := len(stack) - 1
	for stack[at] != v {
		at--
	}
	for _, w := range stack[at:] {
		on[w] = false
		if w < funcs && len(stack)-at > 1 {
			g.cyclic[w] = true
		}
	}
	return stack[:at]
}
