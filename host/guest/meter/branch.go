package meter

// branch writes conditional branches as an if around a branch. wazero compares
// and jumps at once for an if; for a branch to where others come from too it
// makes a number of the comparison first and then tests that.
type branch struct{ spare []instr }

func (p *branch) function(f *function) {
	out := p.spare[:0]
	for k := range f.code {
		i := f.code[k]
		if i.op != opBrIf || !f.bare(i.n) {
			out = append(out, i)
			continue
		}
		l := f.label(label{op: opIf, void: true})
		out = append(out, instr{op: opIf, n: l, at: i.at, raw: []byte{opIf, void}}, instr{op: opBr, n: i.n}, instr{op: opEnd, n: l, raw: []byte{opEnd}})
	}
	f.code, p.spare = out, f.code
}

// bare reports whether a branch to a label takes no values along.
func (f *function) bare(n uint32) bool {
	l := f.labels[n]
	return l.void || l.op == opLoop && !l.params
}
