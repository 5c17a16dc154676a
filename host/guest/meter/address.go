package meter

// address helps the compiler with static data. wazero checks every access to the
// memory, unless it knows that one by the same value went as far before; but
// every constant is a value of its own. So a local that is always zero takes the
// place of the address 0, and the function begins with an access to the last
// byte that the memory has from the start: then no access to static data is
// checked again. What traps is the same.
type address struct{ m *module }

// fewStatic accesses are not worth it.
const fewStatic = 2

func (p address) function(f *function) {
	if p.m.pages == 0 || f.static() < fewStatic {
		return
	}
	zero := f.local()
	get, set := uleb([]byte{opLocalGet}, zero), uleb([]byte{opLocalSet}, zero)
	last := uint32(min(p.m.pages<<16, 1<<32) - 1)
	touch := []instr{{op: opLocalGet, n: zero, raw: get}, {op: opI32Load8U, raw: uleb([]byte{opI32Load8U, 0}, last)}, {op: opDrop, raw: []byte{opDrop}}}
	// Where ways meet, as behind the payment at the entry, the compiler makes another
	// value of the local, unless it is set to what it was; and where they come out of
	// a loop it knows nothing.
	same := instr{op: opRaw, raw: append(get[:len(get):len(get)], set...)}
	out := append(append(make([]instr, 0, len(f.code)+len(f.code)/4), same), touch...)
	var loops []int // how many loops begin before each open block
	n := 0
	for k, i := range f.code {
		switch i.op {
		case opI32Const:
			if i.n == 0 {
				i.op, i.n, i.raw = opLocalGet, zero, get
			}
		case opLoop:
			n++
			loops = append(loops, n-1)
		case opBlock, opIf:
			loops = append(loops, n)
		}
		out = append(out, i)
		if i.op == opEnd && k < len(f.code)-1 {
			out = append(out, same)
			if top := len(loops) - 1; loops[top] < n {
				out = append(out, touch...)
			}
			loops = loops[:len(loops)-1]
		}
	}
	f.code = out
}

// static counts the loads from an address that the code says.
func (f *function) static() (n int) {
	for k := 1; k < len(f.code); k++ {
		if op := f.code[k].op; op >= 0x28 && op <= 0x35 && f.code[k-1].op == opI32Const && f.code[k-1].n == 0 {
			n++
		}
	}
	return n
}
