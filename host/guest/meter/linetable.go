package meter

import (
	"path"
	"strings"
)

// Package debug/dwarf is not made for what somebody has a reason to forge: a line table
// of a hundred bytes has it ask for more memory than there is. This reads line tables
// only (DWARF 2 to 5), each byte once, and keeps no more than the limits below.

// Limits of a line table and of all together.
const (
	maxPath    = 1024
	maxEntries = 1 << 16 // folders or files of a table
	maxFiles   = 1 << 14
	maxAttrs   = 64 // of a unit that are looked at
)

// A lineTable is one that is read.
type lineTable struct {
	*lines
	version  uint64
	least    uint32 // bytes of an instruction
	base     int    // of lines that special opcodes add
	span     int
	lengths  []byte // of the standard opcodes
	folders  [][]byte
	files    []lineFile
	known    []int // of lines.files, plus one, once it is needed
	first    int   // number of the first file
	position position
	at       uint32
}

type lineFile struct {
	name   []byte
	folder uint32
}

// readTables reads all tables.
func (l *lines) readTables() {
	folders := l.unitFolders()
	r := whole(l.sections[".debug_line"])
	for r.off < r.end {
		start := uint32(r.off)
		t := lineTable{lines: l, folders: [][]byte{folders[start]}}
		t.read(r.sub(r.length()))
	}
}

// read reads a table as far as it is right.
func (t *lineTable) read(r *reader) {
	defer func() { _ = recover() }() // of an *Error
	if t.head(r) {
		t.run(r)
	}
}

// head reads all before the program, and reports whether there is one to run.
func (t *lineTable) head(r *reader) bool {
	if t.version = r.fixed(2); t.version < 2 || t.version > 5 {
		return false
	}
	if t.version == 5 {
		r.take(2) // sizes of addresses and segments
	}
	begin := *r.sub(uint32(r.fixed(4)))
	head, program := &begin, r.off
	t.least = uint32(head.u8())
	if t.version >= 4 {
		head.u8() // operations of an instruction
	}
	head.u8() // whether a line begins a statement
	t.base, t.span = int(int8(head.u8())), int(head.u8())
	t.lengths = head.take(uint32(max(1, head.u8())) - 1)
	if t.version == 5 {
		t.folders, t.files = nil, nil
		t.entries(head, func(e lineFile) { t.folders = append(t.folders, e.name) })
		t.entries(head, func(e lineFile) { t.files = append(t.files, e) })
	} else {
		t.first = 1
		t.names(head)
	}
	t.known = make([]int, len(t.files))
	r.off = program
	return t.span > 0
}

// names reads the folders and files of DWARF 2 to 4. The first folder is the unit's.
func (t *lineTable) names(r *reader) {
	for name := r.text(); len(name) > 0; name = r.text() {
		t.folders = append(t.folders, name)
		r.most(len(t.folders))
	}
	for name := r.text(); len(name) > 0; name = r.text() {
		f := lineFile{name, r.u32()}
		r.leb(10) // time
		r.leb(10) // size
		t.files = append(t.files, f)
		r.most(len(t.files))
	}
}

func (r *reader) most(n int) {
	if n > maxEntries {
		r.fail("a line table has more than %d entries", maxEntries)
	}
}

// entries reads the folders or the files of DWARF 5.
func (t *lineTable) entries(r *reader, add func(lineFile)) {
	const name, folder = 1, 2
	formats := make([][2]uint32, r.u8())
	for i := range formats {
		formats[i] = [2]uint32{r.u32(), r.u32()}
	}
	n := r.count()
	r.most(int(n))
	for range n {
		var e lineFile
		for _, f := range formats {
			text, v := t.form(r, f[1])
			switch f[0] {
			case name:
				e.name = text
			case folder:
				e.folder = uint32(v)
			}
		}
		add(e)
	}
}

// run executes a line program.
func (t *lineTable) run(r *reader) {
	t.reset()
	for r.off < r.end && len(t.old) < maxRows {
		op := int(r.u8())
		if special := op - len(t.lengths) - 1; special >= 0 {
			t.at += uint32(special/t.span) * t.least
			t.position.line += t.base + special%t.span
			t.row()
			continue
		}
		switch op {
		case 0:
			t.extended(r.sub(r.u32()))
		case 1: // copy
			t.row()
		case 2: // advance_pc
			t.at += r.u32() * t.least
		case 3: // advance_line
			t.position.line += int(r.signed())
		case 4: // set_file
			t.position.file = int(r.u32())
		case 5: // set_column
			t.position.column = int(r.u32())
		case 8: // const_add_pc
			t.at += uint32((255-len(t.lengths)-1)/t.span) * t.least
		case 9: // fixed_advance_pc
			t.at += uint32(r.fixed(2))
		default:
			for range t.lengths[op-1] {
				r.leb(10)
			}
		}
	}
}

func (t *lineTable) reset() { t.at, t.position = 0, position{file: 1, line: 1} }

func (t *lineTable) extended(r *reader) {
	switch r.u8() {
	case 1: // end_sequence
		t.mark(position{})
		t.reset()
	case 2: // set_address
		t.at = uint32(r.fixed(uint32(r.end - r.off)))
	}
}

// row notes that the code from here on is at the position.
func (t *lineTable) row() {
	p := t.position
	p.file = t.file(p.file - t.first)
	t.mark(p)
}

func (t *lineTable) mark(p position) { t.old = append(t.old, row{t.at, t.placed(p)}) }

// file is a file of the table among all, from 1; 0 if there is none.
func (t *lineTable) file(n int) int {
	if n < 0 || n >= len(t.files) {
		return 0
	}
	if t.known[n] == 0 {
		f := t.files[n]
		name := string(f.name)
		if int(f.folder) < len(t.folders) {
			name = joined(joined(string(t.folders[0]), string(t.folders[f.folder])), name)
		}
		t.known[n] = t.named(name)
	}
	return t.known[n]
}

// joined is a path in a folder, unless it says all by itself.
func joined(folder, file string) string {
	drive := func(s string) bool { return len(s) > 1 && s[1] == ':' }
	switch {
	case folder == "" || folder == file || strings.HasPrefix(file, "/") || strings.HasPrefix(file, `\`) || drive(file):
		return file
	case drive(folder) && strings.Contains(folder, `\`):
		return strings.TrimSuffix(folder, `\`) + `\` + file
	}
	return path.Join(folder, file)
}
