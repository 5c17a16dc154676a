package meter

// What is known of vector instructions, by the number behind their prefix.
const (
	vecLoad, vecLoad64Splat, vecStore, vecConst = 0, 10, 11, 12
	vecLoad32Zero, vecLoad64Zero                = 92, 93
)

// vectorLoadSize is how many bytes a vector instruction reads, 0 if it is no load or
// one of a lane, which takes the vector too.
func vectorLoadSize(sub uint32) int32 {
	switch {
	case sub == vecLoad:
		return 16
	case sub < 7, sub == vecLoad64Splat, sub == vecLoad64Zero: // load8x8_s to load32x2_u
		return 8
	case sub < vecLoad64Splat:
		return 1 << (sub - 7)
	case sub == vecLoad32Zero:
		return 4
	}
	return 0
}

// vectorPlain reports whether a vector instruction takes two vectors and is one
// instruction, or two, of every processor that guests are compiled for.
func vectorPlain(sub uint32) bool {
	switch sub {
	case 35, 45, 55, 214, // eq
		39, 49, 59, // gt_s
		78, 79, 80, 81, // and, andnot, or, xor
		110, 113, 142, 145, 174, 177, 206, 209, // add, sub
		118, 119, 120, 121, 150, 151, 152, 153, 182, 183, 184, 185: // min, max
		return true
	}
	return false
}

// vectorWeight is at worst what a vector instruction costs: some are a dozen
// instructions of the processor.
func vectorWeight(sub uint32) int {
	switch {
	case vectorPlain(sub):
		return 1
	case vectorLoadSize(sub) > 0, sub == vecStore, sub == vecConst:
		return 4
	}
	return 8
}

// vectorArity is plainArity of a vector instruction.
func (i *instr) vectorArity() (pops, pushes int, ok bool) {
	switch {
	case i.n == vecConst:
		return 0, 1, true
	case vectorPlain(i.n):
		return 2, 1, true
	}
	return 0, 0, false
}
