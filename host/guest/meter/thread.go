package meter

// thread makes the jumps of a dispatch loop direct. The Go compiler has no other
// way to jump than to set a variable and to start a loop again whose first act
// is a table of branches over that variable: every if of the source becomes a
// back edge. Where the table leads out of a block that is open at the jump, the
// jump can go there at once; what is left of the loop is the source's own loops,
// and only these need fuel.
type thread struct{ jumps int }

// A dispatch is the head of such a loop: what its variable leads to.
type dispatch struct {
	local uint32
	table []uint32
}

func (t *thread) function(f *function) {
	heads := map[uint32]dispatch{}
	open := make([]bool, len(f.labels))
	changed := false
	for k := range f.code {
		switch i := &f.code[k]; i.op {
		case opBlock, opIf:
			open[i.n] = true
		case opLoop:
			open[i.n] = true
			if d, ok := f.dispatch(k); ok {
				heads[i.n] = d
			}
		case opEnd:
			open[i.n] = false
		case opBr:
			if to, ok := f.jump(k, heads); ok && open[to] {
				i.n, changed = to, true
				t.jumps++
			}
		}
	}
	if changed {
		f.mark()
	}
}

// dispatch reports whether the loop at k begins with nothing but blocks and a
// table over a local.
func (f *function) dispatch(k int) (d dispatch, ok bool) {
	if !f.labels[f.code[k].n].void {
		return d, false
	}
	for k++; k < len(f.code) && f.code[k].op == opBlock && f.labels[f.code[k].n].void; k++ {
	}
	if k+1 >= len(f.code) || f.code[k].op != opLocalGet || f.code[k+1].op != opBrTable {
		return d, false
	}
	return dispatch{f.code[k].n, f.code[k+1].table}, true
}

// jump returns the label that the branch at k comes to in the end: it goes to
// the head of a dispatch loop right after the variable was set to a constant.
func (f *function) jump(k int, heads map[uint32]dispatch) (to uint32, ok bool) {
	d, ok := heads[f.code[k].n]
	if !ok || k < 2 {
		return 0, false
	}
	set, value := &f.code[k-1], &f.code[k-2]
	if set.op != opLocalSet || set.n != d.local || value.op != opI32Const {
		return 0, false
	}
	to = d.table[min(value.n, uint32(len(d.table)-1))]
	return to, f.labels[to].void && f.labels[to].op == opBlock
}
