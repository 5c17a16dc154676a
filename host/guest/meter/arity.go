package meter

// plainArity is what instructions take and leave that only count: none of them traps.
func (i *instr) plainArity() (pops, pushes int, ok bool) {
	switch op := i.op; {
	case op == opVector:
		return i.vectorArity()
	case op == opGlobalGet || op >= 0x42 && op <= 0x44: // constants
		return 0, 1, true
	case op == opSelect:
		return 3, 1, true
	case op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82 || op >= 0xa8 && op <= 0xab || op >= 0xae && op <= 0xb1: // may trap
		return 0, 0, false
	case op == 0x45 || op == 0x50 || op >= 0x67 && op <= 0x69 || op >= 0x79 && op <= 0x7b ||
		op >= 0x8b && op <= 0x91 || op >= 0x99 && op <= 0x9f || op >= 0xa7 && op <= 0xc4:
		return 1, 1, true
	case op >= 0x46 && op <= 0xa6:
		return 2, 1, true
	}
	return 0, 0, false
}

// loadSize is how many bytes loads read, from 0x28 on.
var loadSize = [...]int32{4, 8, 4, 8, 1, 1, 2, 2, 1, 1, 2, 2, 4, 4}

// loads is how many bytes an instruction reads of the memory, and no more than that.
func (i *instr) loads() int32 {
	switch {
	case i.op >= 0x28 && i.op <= 0x35:
		return loadSize[i.op-0x28]
	case i.op == opVector:
		return vectorLoadSize(i.n)
	}
	return 0
}
