package meter

const (
	// pathLimit is the most that runs between two payments where there is no
	// loop: longer code pays on its way.
	pathLimit = 1024
	// leafLimit is the most that a function costs that does not pay itself: its
	// caller pays for it.
	leafLimit = 256
	// hostCost is about what leaving for the host and coming back costs.
	hostCost = 100
	// fewValues are moved at no cost beyond what moves them.
	fewValues = 8
)

// weight is what an instruction costs in units, at worst.
func weight(i *instr) int {
	switch op := i.op; {
	case op == opElse || op == opEnd || op == opBlock || op == opLoop || op == opRaw:
		return 0
	case op >= 0x28 && op <= 0x35: // loads
		return 4
	case op >= 0x36 && op <= 0x3e: // stores
		return 2
	case op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82: // integer division
		return 16
	case op == 0x91 || op == 0x95 || op == 0x9f || op == 0xa3: // square root, division
		return 16
	case op >= 0xa8 && op <= 0xbf: // conversions
		return 4
	case op == opBrTable:
		return 4
	case op == opCall || op == opCallIndirect:
		return 8
	case op == opMemoryGrow:
		return hostCost
	case op == opMisc:
		return 8
	case op == opVector:
		return vectorWeight(i.n)
	}
	return 1
}

// moves is what it costs, at worst, that an instruction takes values along: to where
// others come from too, into a function and out of it. A few stay in registers.
func (f *function) moves(i *instr) int {
	n := 0
	switch i.op {
	case opBr, opBrIf:
		n = f.labels[i.n].values
	case opBrTable:
		n = f.labels[i.table[0]].values
	case opIf, opElse, opEnd:
		n = f.labels[i.n].ends
	case opReturn:
		n = f.labels[0].ends
	case opCall:
		n = f.m.types[f.m.funcs[i.n]].values()
	case opCallIndirect:
		n = f.m.types[i.n].values()
	}
	return 2 * max(0, n-fewValues)
}

// A region is the part of a function that one kind of payment pays for: a loop
// without the loops in it, or the function without its loops.
type region struct {
	peak int  // the most that runs between two payments
	leaf bool // there is no loop in it
}

// A cost says where a function has to pay, and how much.
type cost struct {
	regions []region       // by label; only used loops, and the function
	pays    map[int]uint32 // instructions before which to pay, and for which region
}

const dead = -1

// A level is a region whose code is being walked: spent is what ran since the
// last payment on the most expensive way here, dead if there is no way.
type level struct {
	loop  uint32
	spent int
}

// A frame is an open block: out is the most expensive way to its end by a branch.
type frame struct {
	label uint32
	level int
	out   int
	atIf  int
	loop  bool // the block is a region of its own
	plain bool // an if that has had no else yet
}

// A walk follows a function from its beginning to its end. Code that cannot be
// reached costs nothing.
type walk struct {
	f      *function
	call   func(i *instr) int // what a call costs beyond its weight
	levels []level
	frames []frame
	at     []int // where the open block of each label is in frames
	cost   cost
}

// measure finds the cost of a function. The locals must be cleared at entry.
func (f *function) measure(call func(i *instr) int) cost {
	w := walk{f: f, call: call, at: make([]int, len(f.labels)), cost: cost{regions: make([]region, len(f.labels))}}
	w.enter(0, int(f.locals)/8)
	w.push(frame{})
	for k := range f.code {
		w.step(k, &f.code[k])
	}
	return w.cost
}

func (w *walk) top() *level { return &w.levels[len(w.levels)-1] }

func (w *walk) enter(loop uint32, spent int) {
	if len(w.levels) > 0 {
		w.cost.regions[w.top().loop].leaf = false
	}
	w.levels = append(w.levels, level{loop, spent})
	w.cost.regions[loop] = region{peak: max(spent, 1), leaf: true}
}

func (w *walk) push(f frame) {
	f.level, f.out = len(w.levels)-1, dead
	w.at[f.label] = len(w.frames)
	w.frames = append(w.frames, f)
}

func (w *walk) step(k int, i *instr) {
	w.spend(k, i)
	l := w.top()
	switch i.op {
	case opBlock, opIf:
		w.push(frame{label: i.n, atIf: l.spent, plain: i.op == opIf})
	case opLoop:
		w.loop(i.n)
	case opElse:
		f := &w.frames[len(w.frames)-1]
		f.out, f.plain = max(f.out, l.spent), false
		l.spent = f.atIf
	case opEnd:
		w.end()
	case opBr:
		w.branch(i.n)
		l.spent = dead
	case opBrIf:
		w.branch(i.n)
	case opBrTable:
		for _, t := range i.table {
			w.branch(t)
		}
		l.spent = dead
	case opReturn, opUnreachable:
		l.spent = dead
	}
}

func (w *walk) spend(k int, i *instr) {
	l := w.top()
	if l.spent == dead {
		return
	}
	n := weight(i) + w.f.moves(i) + w.f.fixed(k)>>bulkShift
	if i.op == opCall || i.op == opCallIndirect {
		n += w.call(i)
	}
	if n > 0 && l.spent+n > pathLimit {
		if w.cost.pays == nil {
			w.cost.pays = map[int]uint32{}
		}
		w.cost.pays[k] = l.loop
		l.spent = 0
	}
	l.spent += n
	r := &w.cost.regions[l.loop]
	r.peak = max(r.peak, l.spent)
}

// maxFixed is the most that a bulk operation works on whose size the code says:
// the way to it pays for it, as for any instruction.
const maxFixed = 4096

// fixed is the size of the bulk operation at k, if the code says it and it is not
// large. A constant right before it is its last operand: nothing can come between.
func (f *function) fixed(k int) int {
	if k == 0 || !f.code[k].bulk || f.code[k-1].op != opI32Const || f.code[k-1].n > maxFixed {
		return 0
	}
	return int(f.code[k-1].n)
}

func (w *walk) loop(l uint32) {
	if !w.f.labels[l].used { // It runs once.
		w.push(frame{label: l})
		return
	}
	spent := 2 // the payment itself
	if w.top().spent == dead {
		spent = dead
	}
	w.enter(l, spent)
	w.push(frame{label: l, loop: true})
}

func (w *walk) end() {
	f := w.frames[len(w.frames)-1]
	w.frames = w.frames[:len(w.frames)-1]
	if f.loop {
		reached := w.top().spent != dead
		w.levels = w.levels[:len(w.levels)-1]
		if !reached {
			w.top().spent = dead
		}
		return
	}
	if f.plain {
		f.out = max(f.out, f.atIf)
	}
	if l := w.top(); len(w.frames) > 0 {
		l.spent = max(l.spent, f.out)
	}
}

// branch takes the way to the end of a block: there the region of the block goes
// on from what it had spent where the branch left it.
func (w *walk) branch(to uint32) {
	if w.top().spent == dead {
		return
	}
	f := &w.frames[w.at[to]]
	f.out = max(f.out, w.levels[f.level].spent)
}
