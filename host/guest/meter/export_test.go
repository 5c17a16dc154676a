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

// Effort is the most that a function of the metered form can take of the compiler, as
// parts of what is refused.
func Effort(wasm []byte, covered bool) (time, space float64, err error) {
	defer guard(&err)
	m := parse(wasm)
	w := &watch{}
	var look []pass
	if covered {
		look = append(look, &cover{m: m, names: map[uint32]string{}})
	}
	m.write(append(m.passes(nil).all(look...), w)...)
	return w.time / (maxSeconds * 1e9), w.space / maxSpace, nil
}

type watch struct {
	effort
	time, space float64
}

func (w *watch) function(f *function) {
	w.walk(f)
	w.time, w.space = max(w.time, w.effort.time), max(w.space, w.effort.space)
}

const (
	MaxSpace   = maxSpace
	MaxSeconds = maxSeconds
)
