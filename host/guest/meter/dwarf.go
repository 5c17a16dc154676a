package meter

import (
	"sort"
	"strings"
)

// Limits of what is kept of a guest's debugging information.
const (
	maxDebug = 64 << 20 // bytes of sections
	maxRows  = 4 << 20
)

// A position is a place in the source. A row says which position the code from
// an address on has: an offset in the code section.
type position struct {
	file         int
	line, column int
}

type row struct {
	at  uint32
	pos uint32 // an index of positions
}

// lines are the line tables of a module, and those of the rewritten one: the
// rewriting moves code, so the tables are made again.
type lines struct {
	sections  map[string][]byte
	code      int // where the code section begins
	old       []row
	positions []position
	files     []string
	// Where they are among positions and files.
	byPosition map[position]uint32
	byName     map[string]int
	rows       []row // of the function being written, in its body
	out        [][]row
}

func (l *lines) add(name string, content []byte) {
	if !strings.HasPrefix(name, ".debug_") || len(content) > maxDebug {
		return
	}
	if l.sections == nil {
		l.sections = map[string][]byte{}
	}
	l.sections[name] = content
}

// read decodes the tables. A module whose tables are wrong has none.
func (l *lines) read() {
	defer func() {
		if recover() != nil {
			l.old = nil
		}
	}()
	l.byName, l.byPosition = map[string]int{}, map[position]uint32{}
	l.readTables()
	sort.SliceStable(l.old, func(i, j int) bool { return l.old[i].at < l.old[j].at })
}

// named is the number of a file, from 1, and 0 where there are too many.
func (l *lines) named(file string) int {
	n := l.byName[file]
	if n == 0 && len(l.files) < maxFiles {
		l.files = append(l.files, file)
		n = len(l.files)
		l.byName[file] = n
	}
	return n
}

// placed is the index of a position.
func (l *lines) placed(p position) uint32 {
	n, known := l.byPosition[p]
	if !known {
		n = uint32(len(l.positions))
		l.byPosition[p] = n
		l.positions = append(l.positions, p)
	}
	return n
}

// note says that the instruction at an offset of the module is now at one of the
// body that is written.
func (l *lines) note(offset int, now int) {
	at := uint32(offset - l.code)
	k := sort.Search(len(l.old), func(i int) bool { return l.old[i].at > at }) - 1
	if k < 0 {
		return
	}
	pos := l.old[k].pos
	if n := len(l.rows); n == 0 || l.rows[n-1].pos != pos {
		l.rows = append(l.rows, row{uint32(now), pos})
	}
}

// custom are the sections that say where the code of bodies, each with its
// length before it, came from. The code section begins with count.
func (l *lines) custom(bodies [][]byte, count uint32) (out []byte) {
	at := uint32(len(uleb(nil, count)))
	program := []byte{0, 5, 2, 0, 0, 0, 0} // set_address 0
	state := position{file: 1, line: 1}
	now := uint32(0)
	for k, b := range bodies {
		at += uint32(len(uleb(nil, uint32(len(b)))))
		for _, r := range l.out[k] {
			p := l.positions[r.pos]
			program = uleb(append(program, 2), at+r.at-now)
			program = sleb(append(program, 3), int32(p.line-state.line))
			if p.file != state.file && p.file > 0 {
				program = uleb(append(program, 4), uint32(p.file))
				state.file = p.file
			}
			if p.column != state.column {
				program = uleb(append(program, 5), uint32(p.column))
			}
			state.line, state.column = p.line, p.column
			program = append(program, 1)
			now = at + r.at
		}
		at += uint32(len(b))
	}
	program = append(uleb(append(program, 2), at-now), 0, 1, 1)
	for _, s := range []struct {
		name    string
		content []byte
	}{
		{".debug_abbrev", []byte{1, 0x11, 0, 0x10, 0x17, 0x11, 1, 0x12, 1, 0, 0, 0}}, // a unit: stmt_list, low_pc, high_pc
		{".debug_info", unit32(append([]byte{4, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 1, 0, 0, 0}, le32(at)...))},
		{".debug_line", unit32(l.header(program))},
		{".debug_str", []byte{0}},
		{".debug_ranges", []byte{0}},
	} {
		out = vec(append(out, secCustom), append(vec(nil, []byte(s.name)), s.content...))
	}
	return out
}

// header is a line table of version 4 with its program.
func (l *lines) header(program []byte) []byte {
	h := []byte{1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0} // no directories
	for _, f := range l.files {
		h = append(append(h, strings.ReplaceAll(f, "\x00", "")...), 0, 0, 0, 0)
	}
	h = append(h, 0)
	return append(append(append([]byte{4, 0}, le32(uint32(len(h)))...), h...), program...)
}

func le32(n uint32) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} }

func unit32(b []byte) []byte { return append(le32(uint32(len(b))), b...) }
