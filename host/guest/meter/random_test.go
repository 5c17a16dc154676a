package meter_test

import (
	"pgregory.net/rapid"
)

// Types of the functions of a random module; blocks use them too.
const (
	typeUnary  = iota // (i32) -> i32
	typeBinary        // (i32, i64) -> i64
	typeVoid          // () -> ()
	numTypes
)

// Globals of a random module.
const (
	globalSteps = iota // i32: what a bounded module may still run
	globalA            // i32
	globalB            // i64
)

const typeSection = "\x01\x0f\x03\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7e\x01\x7e\x60\x00\x00"

// locals of every function after its parameters: i32s, then i64s.
const (
	localI32s = 4
	localI64s = 2
)

// A generator writes the code of one random function, which is always valid.
type generator struct {
	t       *rapid.T
	b       []byte
	types   []int // of all functions
	self    int
	bounded bool  // it ends in time by itself
	labels  []int // what a branch to each open label is like
	depth   int
}

// What a branch to a label is like.
const (
	plainLabel  = iota // it leaves a block without results
	loopLabel          // it starts a loop without parameters again
	valuedLabel        // it takes a value
)

// module draws a module whose functions are all exported by their numbers.
func module(t *rapid.T, bounded bool) (wasm []byte, types []int) {
	for range rapid.IntRange(1, 5).Draw(t, "functions") {
		types = append(types, rapid.IntRange(0, numTypes-1).Draw(t, "type"))
	}
	funcs, exports, code := uleb(nil, len(types)), uleb(nil, len(types)+3), uleb(nil, len(types))
	elems := uleb([]byte{1, 0, 0x41, 0, 0x0b}, len(types))
	for k, ft := range types {
		funcs = append(funcs, byte(ft))
		exports = append(exports, 1, byte('0'+k), 0, byte(k))
		elems = append(elems, byte(k))
		g := &generator{t: t, types: types, self: k, bounded: bounded}
		code = vec(code, g.function())
	}
	exports = append(exports, "\x01a\x03\x01\x01b\x03\x02\x06memory\x02\x00"...)
	wasm = []byte("\x00asm\x01\x00\x00\x00" + typeSection)
	wasm = vec(append(wasm, 3), funcs)
	wasm = append(wasm, 4, 4, 1, 0x70, 0, 16)
	wasm = append(wasm, 5, 4, 1, 1, 1, 3)
	wasm = append(wasm, "\x06\x11\x03\x7f\x01\x41\xd0\x0f\x0b\x7f\x01\x41\x01\x0b\x7e\x01\x42\x02\x0b"...) // 2000 steps
	wasm = vec(append(wasm, 7), exports)
	wasm = vec(append(wasm, 9), elems)
	return vec(append(wasm, 10), code), types
}

func params(ft int) int { return []int{1, 2, 0}[ft] }

func (g *generator) function() []byte {
	g.op(2, localI32s, 0x7f, localI64s, 0x7e)
	if g.bounded {
		g.step()
		g.op(0x45, 0x04, 0x40) // eqz if
		g.zero()
		g.op(0x0f, 0x0b)
	}
	g.labels = []int{[]int{valuedLabel, valuedLabel, plainLabel}[g.types[g.self]]}
	g.statements()
	switch g.types[g.self] {
	case typeUnary:
		g.i32()
	case typeBinary:
		g.i64()
	}
	g.op(0x0b)
	return g.b
}

// zero is the result of a function that has no steps left.
func (g *generator) zero() {
	switch g.types[g.self] {
	case typeUnary:
		g.op(0x41, 0)
	case typeBinary:
		g.op(0x42, 0)
	}
}

func (g *generator) op(b ...byte) { g.b = append(g.b, b...) }

func (g *generator) draw(low, high int) int { return rapid.IntRange(low, high).Draw(g.t, "n") }

// step takes one step and leaves whether there are more.
func (g *generator) step() {
	g.op(0x23, globalSteps, 0x41, 1, 0x6b, 0x24, globalSteps, 0x23, globalSteps, 0x41, 0, 0x4a) // gt_s
}

func (g *generator) i32Local() byte {
	first := params(g.types[g.self])
	n := first + g.draw(0, localI32s-1)
	if first > 0 && g.draw(0, 3) == 0 {
		n = 0
	}
	return byte(n)
}

func (g *generator) i64Local() byte {
	return byte(params(g.types[g.self]) + localI32s + g.draw(0, localI64s-1))
}

// deeper reports whether there may be one more level, which it then draws.
func (g *generator) deeper(inside func()) bool {
	if g.depth >= 5 {
		return false
	}
	g.depth++
	inside()
	g.depth--
	return true
}

func (g *generator) block(like int, op, bt byte, inside func()) {
	g.op(op, bt)
	g.labels = append(g.labels, like)
	inside()
	g.labels = g.labels[:len(g.labels)-1]
	g.op(0x0b)
}

func (g *generator) i32() {
	n := g.draw(0, 13)
	if n < 6 && g.deeper(func() { g.deepI32(n) }) {
		return
	}
	switch n % 4 {
	case 0:
		g.op(0x41, byte(g.draw(0, 127)))
	case 1:
		g.op(0x23, globalA)
	default:
		g.op(0x20, g.i32Local())
	}
}

func (g *generator) deepI32(n int) {
	switch n {
	case 0:
		g.i32()
		g.i32()
		g.op(byte(g.draw(0x6a, 0x78))) // arithmetic, division too
	case 1:
		g.address()
		g.op(0x28, 2, 0)
	case 2:
		g.block(valuedLabel, 0x02, 0x7f, func() { g.statements(); g.i32(); g.leave() })
	case 3:
		g.i32()
		g.block(valuedLabel, 0x04, 0x7f, func() { g.statements(); g.i32(); g.op(0x05); g.i32() })
	case 4:
		g.call(typeUnary, g.i32)
	case 5:
		g.i64()
		g.op(0xa7)
	}
}

// leave branches out of the block with the value on the stack, perhaps.
func (g *generator) leave() {
	if g.draw(0, 2) == 0 {
		g.i32()
		g.op(0x0d, 0)
	}
}

func (g *generator) i64() {
	n := g.draw(0, 9)
	if n < 4 && g.deeper(func() {
		switch n {
		case 0:
			g.i64()
			g.i64()
			g.op(byte(g.draw(0x7c, 0x8a)))
		case 1:
			g.address()
			g.op(0x29, 3, 0)
		case 2:
			g.call(typeBinary, func() { g.i32(); g.i64() })
		case 3:
			g.i32()
			g.op(0xad)
		}
	}) {
		return
	}
	switch n % 3 {
	case 0:
		g.op(0x42, byte(g.draw(0, 127)))
	case 1:
		g.op(0x23, globalB)
	default:
		g.op(0x20, g.i64Local())
	}
}

// address is one inside the memory.
func (g *generator) address() {
	g.i32()
	g.op(0x41, 0xff, 0xff, 0x01, 0x71) // and 0x7fff
}

// call calls a function of a type, directly or by the table, or gives up: then
// the value is that of the last argument.
func (g *generator) call(ft int, arguments func()) {
	if g.draw(0, 1) == 0 {
		arguments()
		g.i32()
		g.op(0x41, 7, 0x71, 0x11, byte(ft), 0) // traps when there is no such function
		return
	}
	for k, t := range g.types {
		if t == ft && (g.draw(0, 1) == 0) {
			arguments()
			g.op(0x10, byte(k))
			return
		}
	}
	switch ft {
	case typeUnary:
		g.op(0x41, 5)
	case typeBinary:
		g.op(0x42, 5)
	}
}

func (g *generator) statements() {
	for range g.draw(0, 3) {
		g.statement(g.draw(0, 15))
	}
}

func (g *generator) statement(n int) {
	switch n {
	case 0, 1:
		g.i32()
		g.op(0x21, g.i32Local())
	case 2:
		g.i64()
		g.op(0x21, g.i64Local())
	case 3:
		g.i32()
		g.op(0x24, globalA)
	case 4:
		g.address()
		g.i32()
		g.op(0x36, 2, 0)
	case 5:
		g.call(typeVoid, func() {})
	case 6:
		g.branch()
	case 7:
		g.address()
		g.i32()
		g.op(0x41, byte(g.draw(0, 127)), 0xfc, 11, 0) // fill
	case 8:
		g.i32()
		g.block(plainLabel, 0x04, 0x40, func() { g.op(0x00) }) // trap, perhaps
	case 9:
		g.i64()
		g.op(0x24, globalB)
	default:
		g.deeper(func() { g.structure(n) })
	}
}

func (g *generator) structure(n int) {
	switch n {
	case 10:
		g.block(plainLabel, 0x02, 0x40, g.statements)
	case 11:
		g.i32()
		g.block(plainLabel, 0x04, 0x40, func() { g.statements(); g.op(0x05); g.statements() })
	case 12, 13:
		g.block(loopLabel, 0x03, 0x40, func() { g.statements(); g.again(0) })
	case 14:
		g.op(0x41, 3)
		g.block(valuedLabel, 0x03, typeUnary, func() { // a loop with a parameter
			g.op(0x21, g.i32Local())
			g.statements()
			g.op(0x41, 9)
			g.again(0)
		})
		g.op(0x1a)
	case 15:
		g.dispatch()
	}
}

// again starts a loop again, if there are steps left.
func (g *generator) again(depth int) {
	if g.bounded {
		g.step()
	} else {
		g.i32()
	}
	g.op(0x0d, byte(depth))
}

// branch goes to an open label in one of all ways; some code is left dead.
func (g *generator) branch() {
	var plain []byte
	for depth := range g.labels {
		switch like := g.labels[len(g.labels)-1-depth]; {
		case like == plainLabel, like == loopLabel && !g.bounded:
			plain = append(plain, byte(depth))
		case like == loopLabel && g.draw(0, 2) == 0:
			g.again(depth)
			return
		}
	}
	if len(plain) == 0 {
		return
	}
	pick := func() byte { return plain[g.draw(0, len(plain)-1)] }
	switch g.draw(0, 4) {
	case 0:
		g.op(0x0c, pick())
	case 1:
		g.i32()
		g.op(0x0e, 2, pick(), pick(), pick())
	default:
		g.i32()
		g.op(0x0d, pick())
	}
}

// dispatch writes a loop as the Go compiler does: every jump sets a variable and
// goes to the head.
func (g *generator) dispatch() {
	n, pc := g.draw(1, 4), g.i32Local()
	g.block(plainLabel, 0x02, 0x40, func() {
		g.block(loopLabel, 0x03, 0x40, func() {
			labels := g.labels
			for range n {
				g.op(0x02, 0x40)
				g.labels = append(g.labels, plainLabel)
			}
			g.op(0x20, pc, 0x0e, byte(n-1))
			for range n {
				g.op(byte(g.draw(0, n-1)))
			}
			for k := range n {
				g.op(0x0b)
				g.labels = g.labels[:len(g.labels)-1]
				g.statements()
				g.jump(pc, byte(g.draw(0, n+1)), n-1-k)
			}
			g.labels = labels
		})
	})
}

// jump sets pc and goes to the head of the loop that is so deep, perhaps in an if.
func (g *generator) jump(pc, to byte, depth int) {
	if g.draw(0, 3) == 0 {
		return
	}
	if g.bounded {
		g.step()
		g.op(0x45, 0x0d, byte(depth+1))
	}
	if inside := g.draw(0, 1) == 0; inside {
		g.i32()
		g.op(0x04, 0x40, 0x41, to, 0x21, pc, 0x0c, byte(depth+1), 0x0b)
		return
	}
	g.op(0x41, to, 0x21, pc, 0x0c, byte(depth))
}
