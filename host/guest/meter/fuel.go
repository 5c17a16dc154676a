package meter

const (
	// A loop is small if a round costs at most smallLoop and its code has at most
	// smallCode bytes. Its code stands in copies, and batchFuel pays for a number
	// of rounds at once: a loop that ends in the first has paid too much by that.
	smallLoop = 64
	smallCode = 256
	copies    = 4
	// Of more small loops than these a function has no copies: code in which there is
	// nothing else would be fourteen times as long, and take gigabytes to write.
	maxBatches = 1024
	batchFuel  = 512
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
	m.names = append(m.names, functionName{p.refill, []byte(Refill)}) // The last, so in order.
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
