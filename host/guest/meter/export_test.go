package meter

// CountGlobal is what Counted exports: what was run.
const CountGlobal = Prefix + "count"

// count adds what every instruction weighs to a global before it runs: the
// truth that fuel is compared with.
type count struct{ global uint32 }

func (p *count) function(f *function) {
	var out []instr
	for k := range f.code {
		i := f.code[k]
		if n := weight(&i) + f.moves(&i); n > 0 {
			b := uleb([]byte{opGlobalGet}, p.global)
			b = append(sleb(append(b, opI32Const), int32(n)), opI32Add)
			out = append(out, instr{op: opRaw, raw: uleb(append(b, opGlobalSet), p.global)})
		}
		out = append(out, i)
	}
	f.code = out
}

// Counted is Rewrite with a global that counts what was run.
func Counted(wasm []byte) (_ []byte, err error) {
	defer guard(&err)
	m := parse(wasm)
	c := &count{m.addGlobal(0)}
	m.addExport(CountGlobal, kindGlobal, c.global)
	return m.write(new(thread), &offset{m: m}, address{m}, c, newFuel(m), new(branch)), nil
}

// Slack is what a function may run that pays for nothing.
const Slack = leafLimit
