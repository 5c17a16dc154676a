package meter

import "strings"

// Opcodes that passes look at or write.
const (
	opUnreachable, opBlock, opLoop, opIf, opElse, opEnd = 0x00, 0x02, 0x03, 0x04, 0x05, 0x0b
	opBr, opBrIf, opBrTable, opReturn                   = 0x0c, 0x0d, 0x0e, 0x0f
	opCall, opCallIndirect, opDrop                      = 0x10, 0x11, 0x1a
	opLocalGet, opLocalSet, opLocalTee                  = 0x20, 0x21, 0x22
	opGlobalGet, opGlobalSet                            = 0x23, 0x24
	opI32Load8U, opMemoryGrow, opI32Const               = 0x2d, 0x40, 0x41
	opI32Ne, opI32LtS                                   = 0x47, 0x48
	opI32Add, opI32Sub, opI32And, opI32Or               = 0x6a, 0x6b, 0x71, 0x72
	opI32ShrS, opI32ShrU, opI32Shl                      = 0x75, 0x76, 0x74
	opI32LtU, opSelect                                  = 0x49, 0x1b
	opRefFunc, opMisc, opVector                         = 0xd2, 0xfc, 0xfd
	void                                                = 0x40 // the block type without values
	typeI32                                             = 0x7f
	opRaw                                               = 0x06 // bytes that a pass made; no instruction of a module is that
)

// An instr is one instruction, or bytes that a pass made, in which every block
// ends.
type instr struct {
	op byte
	// bulk operations work on as many elements as the number on the stack says.
	bulk bool
	// n is the first immediate that is an index or an i32; where the instruction
	// has to do with a label, it is that (see function).
	n      uint32
	offset uint32   // of an access to the memory
	at     uint32   // where it is in the module; 0 if a pass made it
	raw    []byte   // all of it, as encoded
	table  []uint32 // br_table's labels, the default last
}

// instr reads one instruction. Depths of a br_table are appended to table.
func (r *reader) instr(table []uint32) instr {
	at := r.off
	i := instr{at: uint32(at), op: r.u8()}
	switch op := i.op; {
	case op == opBlock || op == opLoop || op == opIf: // block types are s33
		i.n = uint32(r.signed())
	case op == opI32Const:
		i.n = uint32(r.signed())
	case op == opBr || op == opBrIf || op == opCall || op >= opLocalGet && op <= 0x26 || op == opRefFunc || op == 0x3f || op == opMemoryGrow || op == 0xd0:
		i.n = r.u32()
	case op == opBrTable:
		for range uint64(r.count()) + 1 {
			table = append(table, r.u32())
		}
		i.table = table
	case op == opCallIndirect:
		i.n = r.u32()
		r.u32()
	case op == 0x1c:
		r.take(r.count())
	case op >= 0x28 && op <= 0x3e:
		i.n = r.u32()
		v, _ := r.leb(10)
		i.offset = uint32(v)
	case op == 0x42:
		r.leb(10)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == opMisc:
		i.n, i.bulk = r.misc()
	case op == opVector:
		i.n, i.offset = r.vector()
	case op <= 0x01 || op == opElse || op == opEnd || op == opReturn || op == opDrop || op == 0x1b || op >= 0x45 && op <= 0xc4 || op == 0xd1:
	default:
		r.fail("opcode 0x%02x is not supported", op)
	}
	i.raw = r.b[at:r.off]
	return i
}

func (r *reader) misc() (sub uint32, bulk bool) {
	sub = r.u32()
	switch {
	case sub <= 7: // saturating truncation
	case sub == 8 || sub == 10 || sub == 12 || sub == 14: // init, copy
		r.u32()
		r.u32()
		bulk = true
	case sub == 11 || sub == 15 || sub == 17: // memory.fill, table.grow, table.fill
		r.u32()
		bulk = true
	case sub == 9 || sub == 13 || sub == 16: // drop, table.size
		r.u32()
	default:
		r.fail("opcode 0xfc %d is not supported", sub)
	}
	return sub, bulk
}

func (r *reader) vector() (sub, offset uint32) {
	sub = r.u32()
	switch {
	case sub <= vecStore || sub == vecLoad32Zero || sub == vecLoad64Zero:
		r.u32()
		v, _ := r.leb(10)
		offset = uint32(v)
	case sub == 12 || sub == 13:
		r.take(16)
	case sub >= 21 && sub <= 34:
		r.u8()
	case sub >= 84 && sub <= 91:
		r.u32()
		r.leb(10)
		r.u8()
	case sub > 255 || strings.IndexByte(reserved, byte(sub)) >= 0:
		r.fail("opcode 0xfd %d is not supported", sub)
	}
	return sub, offset
}

// reserved are the vector opcodes that mean nothing yet.
const reserved = "\x9a\xa2\xa5\xa6\xaf\xb0\xb2\xb3\xb4\xbb\xc2\xc5\xc6\xcf\xd0\xd2\xd3\xd4\xe2\xee"

func localInstr(op byte, l uint32) instr { return instr{op: op, n: l, raw: uleb([]byte{op}, l)} }

func loadInstr(op byte, align, off uint32) instr {
	return instr{op: op, n: align, offset: off, raw: uleb(uleb([]byte{op}, align), off)}
}

// moved is a load with so much more offset. How it is aligned is only a hint.
func (i *instr) moved(by uint32) instr {
	load := loadInstr(i.op, 0, i.offset+by)
	if i.op == opVector {
		load.n, load.raw = i.n, uleb(append(uleb([]byte{opVector}, i.n), 0), load.offset)
	}
	load.at = i.at
	return load
}
