package meter

const (
	// A loop is small if a round costs at most smallLoop and its code has at most
	// smallCode bytes. Its code stands in copies, and batchFuel pays for a number
	// of rounds at once: a loop that ends in the first has paid too much by that.
	smallLoop = 64
	smallCode = 256
	copies    = 4
	batchFuel = 512
	// leadLimit is the most that a loop at the head of a function pays in every
	// round so that the function needs no payment of its own.
	leadLimit = 64
	// A collection can stop the guest once in so many slices, as a shift.
	stopShift = 2
	// A unit of fuel pays for this many bytes of a bulk operation, as a shift.
	bulkShift = 4
	// A page that memory.grow asks for costs a slice, as a shift: the system clears
	// it when it is first used, which takes as long. More than mostPages are paid as
	// so many.
	growShift = sliceShift
	mostPages = 1<<12 - 1
)

// fuel is the pass that meters. Every loop pays for its rounds, every function
// that closes a circle of calls or that is not small pays at its entry, bulk operations pay
// for their size: see cost.go for how much.
type fuel struct {
	m                    *module
	fuel, budget, refill uint32
	owed                 []int          // what the caller of each function pays for it
	most                 map[uint32]int // the most of a type, for call_indirect
	spare                []instr        // memory for the next function
	inserted             Inserted
}

func newFuel(m *module) *fuel {
	p := &fuel{m: m, owed: make([]int, len(m.funcs)), most: map[uint32]int{}}
	for i := range m.imported {
		p.owe(uint32(i), hostCost)
	}
	m.needMemory()
	p.fuel, p.budget = m.addGlobal(0), m.addGlobal(InitialSlices)
	m.addExport(BudgetGlobal, kindGlobal, p.budget)
	m.addExport(FuelGlobal, kindGlobal, p.fuel)
	p.refill = m.addFunc([]byte{0x60, 0, 0}, p.refillCode())
	return p
}

// refillCode starts a new slice. Fuel is negative here: its whole slices are
// taken from the budget and the rest stays, so that no debt is forgiven.
// memory.grow 0 returns to Go for a moment: that is where a garbage collection
// can stop the guest. It takes as long as a part of a slice, so that only the slice
// with which the budget comes below a multiple of stopSlices begins with it.
func (p *fuel) refillCode() []byte {
	const old = 0 // the local
	b := []byte{1, 1, typeI32}
	b = append(uleb(append(b, opGlobalGet), p.budget), opLocalTee, old)
	b = uleb(append(b, opGlobalGet), p.fuel)
	b = append(b, opI32Const, sliceShift, opI32ShrS, opI32Add)
	b = uleb(append(b, opGlobalSet), p.budget)
	b = append(b, opLocalGet, old, opI32Const, stopShift, opI32ShrS)
	b = uleb(append(b, opGlobalGet), p.budget)
	b = append(b, opI32Const, stopShift, opI32ShrS, opI32Ne, opIf, void)
	b = append(b, opI32Const, 0, opMemoryGrow, 0, opDrop, opEnd)
	b = uleb(append(b, opGlobalGet), p.fuel)
	b = append(sleb(append(b, opI32Const), SliceFuel-1), opI32And)
	b = uleb(append(b, opGlobalSet), p.fuel)
	b = uleb(append(b, opGlobalGet), p.budget)
	return append(b, opI32Const, 0, opI32LtS, opIf, void, opUnreachable, opEnd, opEnd)
}

func (p *fuel) function(f *function) {
	c := f.measure(p.callee(f))
	e := editor{fuel: p, f: f, cost: c, out: p.spare[:0]}
	own := c.regions[0].peak
	lead, led := f.leadingLoop()
	switch {
	case !f.again && own <= leafLimit:
		p.owe(f.index, own)
	case led && own <= leadLimit:
		c.regions[lead].peak += own
	default:
		e.pay(own)
		p.inserted.Entries++
	}
	for k := 0; k < len(f.code); {
		k = e.instruction(k, f.code[k])
	}
	f.code, p.spare = e.out, f.code
}

// owe notes what the callers of a function pay for it.
func (p *fuel) owe(f uint32, n int) {
	p.owed[f] = n
	t := p.m.types[p.m.funcs[f]].same
	p.most[t] = max(p.most[t], n)
}

// callee is what a call costs because the callee does not pay itself. What it can
// reach has been seen, or it closes a circle, and pays.
func (p *fuel) callee(f *function) func(i *instr) int {
	return func(i *instr) int {
		if i.op == opCall {
			return p.owed[i.n]
		}
		t := p.m.types[i.n].same
		if p.m.open || !f.seen(t) { // It may be a function of another module, or one that is not seen yet.
			return max(hostCost, leafLimit)
		}
		return p.most[t]
	}
}

// leadingLoop returns the label of the loop that the function cannot but enter
// first, if there is one.
func (f *function) leadingLoop() (uint32, bool) {
	for k := range f.code {
		switch i := &f.code[k]; {
		case i.op == opLoop && f.labels[i.n].used:
			return i.n, true
		case i.op >= opLocalGet && i.op <= opGlobalSet, i.op == opI32Const, i.op == opBlock, i.op == opLoop, i.op == opRaw:
		default:
			return 0, false
		}
	}
	return 0, false
}

// An editor writes the metered code of a function.
type editor struct {
	*fuel
	f    *function
	cost cost
	out  []instr
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
	if r.leaf && r.peak <= smallLoop && !l.params {
		last = e.f.end(k)
	}
	if last == k || size(e.f.code[k:last]) > smallCode {
		e.out = append(e.out, i)
		e.pay(r.peak)
		e.inserted.Loops++
		return k + 1
	}
	e.inserted.Batches++
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

var end = instr{op: opEnd, raw: []byte{opEnd}}

// open begins a block of the type that i has.
func (e *editor) open(op byte, l uint32, i instr) {
	e.out = append(e.out, instr{op: op, n: l, raw: append([]byte{op}, i.raw[1:]...)})
}

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
