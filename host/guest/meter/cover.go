package meter

import (
	"fmt"
	"sort"
)

// CoverPrefix begins the names of the globals that Cover exports: the first has
// the bits of blocks 0 to 31, the lowest bit is the first block, and so on.
const CoverPrefix = Prefix + "cover_"

// CoverWord is how many blocks a global has.
const CoverWord = 32

// A Line is a line of a guest's source.
type Line struct {
	File string
	Line int
}

// A Block is code that runs from its first instruction to its last.
type Block struct {
	Function uint32
	Name     string // of the function, empty if it is not known
	// Traps: it ends in unreachable. Compilers make such blocks for what they know
	// cannot be, and nothing can reach them and go on.
	Traps bool
	Lines []Line // where the debugging information has them
	// Constants are the numbers that stand in it, of 32 bits.
	Constants []uint32
}

// Cover is Rewrite with bits that say which blocks ran. They cost no fuel: what a
// guest is let do is the same.
func Cover(wasm []byte, entries ...string) (_ []byte, _ []Block, err error) {
	defer guard(&err)
	m := parse(wasm)
	c := &cover{m: m, names: map[uint32]string{}}
	for _, n := range m.names {
		c.names[n.index] = string(n.name)
	}
	p, err := m.passes(entries)
	if err != nil {
		return nil, nil, err
	}
	return m.write(p.all(c)...), c.blocks, nil
}

// cover is the pass that counts blocks. A block begins where a branch can lead to
// and after a branch that may not be taken.
type cover struct {
	m      *module
	names  map[uint32]string
	words  []uint32 // the globals
	blocks []Block
	out    []instr // memory for the next function
}

func (p *cover) function(f *function) {
	out, begins, inside := p.out[:0], true, false
	for k := range f.code {
		i := &f.code[k]
		switch i.op {
		case opBlock, opLoop:
			out = append(out, *i)
			begins = begins || i.op == opLoop
			continue
		case opElse, opEnd:
			out = append(out, *i)
			begins, inside = true, false
			continue
		}
		if begins {
			out = append(out, p.probe(f.index))
			begins, inside = false, true
		}
		if inside {
			p.line(i)
		}
		if b := len(p.blocks) - 1; inside && i.op == opI32Const && i.n != 0 {
			p.blocks[b].Constants = append(p.blocks[b].Constants, i.n)
		}
		out = append(out, *i)
		switch i.op {
		case opIf, opBrIf:
			begins, inside = true, false
		case opUnreachable:
			if inside {
				p.blocks[len(p.blocks)-1].Traps = true
			}
			inside = false
		case opBr, opBrTable, opReturn:
			inside = false
		}
	}
	f.code, p.out = out, f.code
}

// probe sets the bit of a new block.
func (p *cover) probe(f uint32) instr {
	n := len(p.blocks)
	p.blocks = append(p.blocks, Block{Function: f, Name: p.names[f]})
	if n%CoverWord == 0 {
		p.words = append(p.words, p.m.addGlobal(0))
		p.m.addExport(fmt.Sprint(CoverPrefix, n/CoverWord), kindGlobal, p.words[n/CoverWord])
	}
	g := p.words[n/CoverWord]
	b := append(uleb([]byte{opGlobalGet}, g), opI32Const)
	b = append(sleb(b, int32(uint32(1)<<(n%CoverWord))), opI32Or)
	return instr{op: opRaw, raw: uleb(append(b, opGlobalSet), g)}
}

// line notes where an instruction of the newest block came from.
func (p *cover) line(i *instr) {
	l := &p.m.lines
	if i.at == 0 || len(l.old) == 0 {
		return
	}
	at := i.at - uint32(l.code)
	k := sort.Search(len(l.old), func(k int) bool { return l.old[k].at > at }) - 1
	if k < 0 {
		return
	}
	pos := l.positions[l.old[k].pos]
	if pos.file == 0 || pos.line == 0 {
		return
	}
	b, line := &p.blocks[len(p.blocks)-1], Line{l.files[pos.file-1], pos.line}
	for _, known := range b.Lines {
		if known == line {
			return
		}
	}
	b.Lines = append(b.Lines, line)
}
