package meter

import "bytes"

// unitFolders are the folders of units of DWARF 2 to 4, by where their line tables
// begin: later ones have it in the table.
func (l *lines) unitFolders() (folders map[uint32][]byte) {
	folders = map[uint32][]byte{}
	defer func() { _ = recover() }() // of an *Error: a path is found without its folder then
	r := whole(l.sections[".debug_info"])
	for r.off < r.end {
		unit := r.sub(r.length())
		if v := unit.fixed(2); v < 2 || v > 4 {
			continue
		}
		abbreviations := whole(l.sections[".debug_abbrev"])
		abbreviations.take(uint32(unit.fixed(4)))
		unit.u8() // size of an address
		if unit.u32() != abbreviations.u32() {
			continue // A unit begins with the first of its abbreviations.
		}
		table, folder := l.unit(unit, abbreviations)
		folders[table] = folder
	}
	return folders
}

// unit is where the line table of a unit begins, and its folder.
func (l *lines) unit(r, abbreviation *reader) (table uint32, folder []byte) {
	const statements, directory = 0x10, 0x1b
	abbreviation.u32() // what it is
	abbreviation.u8()  // whether there is more in it
	for range maxAttrs {
		attribute, form := abbreviation.u32(), abbreviation.u32()
		if attribute == 0 && form == 0 {
			break
		}
		text, n := l.form(r, form)
		switch attribute {
		case statements:
			table = uint32(n)
		case directory:
			folder = text
		}
	}
	return table, folder
}

// Forms of values, as far as line tables and units have them.
const (
	formAddr, formBlock2, formBlock4, formData2, formData4, formData8 = 0x01, 0x03, 0x04, 0x05, 0x06, 0x07
	formString, formBlock, formBlock1, formData1, formFlag            = 0x08, 0x09, 0x0a, 0x0b, 0x0c
	formSdata, formStrp, formUdata, formRef4, formSecOffset           = 0x0d, 0x0e, 0x0f, 0x13, 0x17
	formExprloc, formFlagPresent, formData16, formLineStrp            = 0x18, 0x19, 0x1e, 0x1f
)

// form reads a value: a text or a number.
func (l *lines) form(r *reader, form uint32) (text []byte, n uint64) {
	switch form {
	case formString:
		text = r.text()
	case formStrp:
		n = r.fixed(4)
		text = l.textAt(".debug_str", n)
	case formLineStrp:
		n = r.fixed(4)
		text = l.textAt(".debug_line_str", n)
	case formData1, formFlag:
		n = r.fixed(1)
	case formData2:
		n = r.fixed(2)
	case formAddr, formData4, formRef4, formSecOffset:
		n = r.fixed(4)
	case formData8:
		n = r.fixed(8)
	case formData16:
		r.take(16)
	case formUdata, formSdata:
		n, _ = r.leb(10)
	case formBlock1:
		r.take(uint32(r.fixed(1)))
	case formBlock2:
		r.take(uint32(r.fixed(2)))
	case formBlock4:
		r.take(uint32(r.fixed(4)))
	case formBlock, formExprloc:
		r.take(r.u32())
	case formFlagPresent:
	default:
		r.fail("a value of form %#x", form)
	}
	return text, n
}

func whole(b []byte) *reader { return &reader{b, 0, len(b)} }

// fixed reads a number of so many bytes.
func (r *reader) fixed(n uint32) (v uint64) {
	for i, b := range r.take(n) {
		v |= uint64(b) << (8 * i)
	}
	return v
}

// length is that of a unit; WebAssembly has none over 4 GiB.
func (r *reader) length() uint32 { return uint32(r.fixed(4)) }

// text reads a text that ends with a zero byte.
func (r *reader) text() []byte {
	n := bytes.IndexByte(r.b[r.off:min(r.end, r.off+maxPath+1)], 0)
	if n < 0 {
		r.fail("a path is longer than %d bytes", maxPath)
	}
	r.off += n + 1
	return r.b[r.off-n-1 : r.off-1]
}

// textAt is the text at an offset of a section.
func (l *lines) textAt(name string, offset uint64) []byte {
	r := whole(l.sections[name])
	r.take(uint32(offset))
	return r.text()
}
