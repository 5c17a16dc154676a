package meter

// An editor writes the metered code of a function.
type editor struct {
	*fuel
	f       *function
	cost    cost
	out     []instr
	batches int // loops whose code stands in copies
	// Locals, added when they are needed, plus one.
	scratch, rounds uint32
}

func (e *editor) instruction(k int, i instr) int {
	if region, pays := e.cost.pays[k]; pays {
		e.pay(e.cost.regions[region].peak)
		e.inserted.Paths++
	}
	switch {
	case i.op == opLoop && e.f.labels[i.n].used:
		return e.loop(k)
	default:
		e.size(k)
	}
	e.out = append(e.out, i)
	return k + 1
}

// loop makes every round pay, and returns where the code goes on. A small loop
// is written differently: its body stands there a few times, so that only every
// few rounds are counted, in a local; after some more it leaves to a loop around
// it, which pays for all of them. The inner loop calls nothing, so that its
// values stay in registers.
func (e *editor) loop(k int) int {
	i := e.f.code[k]
	r, l := e.cost.regions[i.n], e.f.labels[i.n]
	last := k
	if r.leaf && r.peak <= smallLoop && !l.params && e.batches < maxBatches {
		last = e.f.end(k)
	}
	if last == k || size(e.f.code[k:last]) > smallCode {
		e.out = append(e.out, i)
		e.pay(r.peak)
		e.inserted.Loops++
		return k + 1
	}
	e.inserted.Batches++
	e.batches++
	rounds := batchFuel / (r.peak * copies)
	exit, pay := e.f.label(label{op: opBlock, void: l.void}), e.f.label(l)
	e.open(opBlock, exit, i)
	e.open(opLoop, pay, i)
	e.pay(rounds * copies * r.peak)
	e.count(rounds)
	e.open(opLoop, i.n, i)
	e.uncount()
	e.out = append(e.out, instr{op: opBrIf, n: pay})
	for range copies - 1 {
		next := e.f.label(label{op: opBlock, void: true})
		e.out = append(e.out, instr{op: opBlock, n: next, raw: []byte{opBlock, void}})
		e.body(k+1, last, i.n, next)
		e.out = append(e.out, instr{op: opBr, n: exit}, end)
	}
	e.body(k+1, last, i.n, i.n)
	e.out = append(e.out, end, end, end)
	return last + 1
}

// open begins a block of the type that i has.
func (e *editor) open(op byte, l uint32, i instr) {
	e.out = append(e.out, instr{op: op, n: l, raw: append([]byte{op}, i.raw[1:]...)})
}

var end = instr{op: opEnd, raw: []byte{opEnd}}

// count sets the local that counts rounds, uncount takes one off and leaves on
// the stack whether there was none.
func (e *editor) count(rounds int) {
	b := sleb([]byte{opI32Const}, int32(rounds))
	e.raw(uleb(append(b, opLocalSet), e.local(&e.rounds)))
}

func (e *editor) uncount() {
	l := e.local(&e.rounds)
	b := append(uleb([]byte{opLocalGet}, l), opI32Const, 1, opI32Sub, opLocalTee)
	e.raw(append(uleb(b, l), opI32Const, 0, opI32LtS))
}

func size(code []instr) (n int) {
	for k := range code {
		n += len(code[k].raw)
	}
	return n
}

// body copies the instructions from up to to, with labels of their own and those
// of the loop changed to next.
func (e *editor) body(from, to int, loop, next uint32) {
	names := map[uint32]uint32{loop: next}
	name := func(l uint32) uint32 {
		if n, ok := names[l]; ok {
			return n
		}
		return l
	}
	for k := from; k < to; k++ {
		i := e.f.code[k]
		switch i.op {
		case opBlock, opIf, opLoop:
			names[i.n] = e.f.label(e.f.labels[i.n])
			i.n = names[i.n]
		case opBr, opBrIf, opElse, opEnd:
			i.n = name(i.n)
		case opBrTable:
			t := make([]uint32, len(i.table))
			for j, l := range i.table {
				t[j] = name(l)
			}
			i.table = t
		}
		e.size(k)
		e.out = append(e.out, i)
	}
}

// size pays for the operation at k if only the stack says its size.
func (e *editor) size(k int) {
	switch i := &e.f.code[k]; {
	case i.bulk && e.f.fixed(k) == 0:
		e.bulk()
	case i.op == opMemoryGrow:
		e.grow()
	}
}

func (e *editor) grow() {
	e.inserted.Bulk++
	scratch := e.local(&e.scratch)
	b := uleb([]byte{opLocalTee}, scratch)
	b = uleb(append(b, opGlobalGet), e.fuel.fuel)
	b = sleb(append(uleb(append(b, opLocalGet), scratch), opI32Const), mostPages)
	b = sleb(append(uleb(append(b, opLocalGet), scratch), opI32Const), mostPages)
	e.take(append(b, opI32LtU, opSelect, opI32Const, growShift, opI32Shl))
}

func (e *editor) bulk() {
	e.inserted.Bulk++
	scratch := e.local(&e.scratch)
	b := uleb([]byte{opLocalTee}, scratch)
	b = uleb(append(b, opGlobalGet), e.fuel.fuel)
	b = uleb(append(b, opLocalGet), scratch)
	e.take(append(b, opI32Const, bulkShift, opI32ShrU))
}

func (e *editor) pay(n int) {
	b := uleb([]byte{opGlobalGet}, e.fuel.fuel)
	e.take(sleb(append(b, opI32Const), int32(n)))
}

// take ends a payment: fuel and what to take of it are on the stack. What is
// taken is less than 2^28, so nothing overflows.
func (e *editor) take(b []byte) {
	scratch := e.local(&e.scratch)
	b = uleb(append(b, opI32Sub, opLocalTee), scratch)
	b = uleb(append(b, opGlobalSet), e.fuel.fuel)
	b = uleb(append(b, opLocalGet), scratch)
	b = append(b, opI32Const, 0, opI32LtS, opIf, void, opCall)
	e.raw(append(uleb(b, e.refill), opEnd))
}

func (e *editor) raw(b []byte) { e.out = append(e.out, instr{op: opRaw, raw: b}) }

func (e *editor) local(l *uint32) uint32 {
	if *l == 0 {
		*l = e.f.local() + 1
	}
	return *l - 1
}
