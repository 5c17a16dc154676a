package meter

import (
	"fmt"
	"strings"
)

// A Summary is what is in a module, and what Rewrite makes of it.
type Summary struct {
	Sections  []Section
	Imports   []Import
	Exports   []Export
	Functions int // with a body
	Globals   int
	Memories  []Limits
	Tables    []Limits
	Start     bool // it has a start function
	// Names and Lines: a trap can name functions, and lines of the source.
	Names, Lines bool
	Producers    []Producer
	Inserted     Inserted
}

// A Section is a part of the file. Offset is where its content begins.
type Section struct {
	Name         string // of a custom one, what it calls itself
	Custom       bool
	Offset, Size int
}

// An Export is something that a module offers its host.
type Export struct{ Name, Kind string }

// Limits are of a memory in pages, or a table in elements. Max is -1 if there is
// none.
type Limits struct {
	Min uint32
	Max int64
}

// A Producer is a line of the section "producers": how the module was made.
type Producer struct {
	Field   string `json:"field"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Inserted counts what Rewrite changes.
type Inserted struct {
	Entries int // functions that pay when they are entered
	Loops   int // loops that pay in each round
	Batches int // small loops, which pay for many rounds at once
	Paths   int // payments in long code without a loop
	Bulk    int // operations that pay by their size
	Depths  int // functions that count how deep calls nest
	Jumps   int // jumps over a dispatch loop that were made direct
	Bytes   int // size of what it makes
}

var sectionNames = []string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}

// Inspect reads a core module. What is malformed is an *Error. The module need
// not have been validated.
func Inspect(wasm []byte) (_ *Summary, err error) {
	defer guard(&err)
	m := parse(wasm)
	p, _ := m.passes(nil)
	s := &Summary{Imports: m.imports, Functions: len(m.funcs) - m.imported, Globals: int(m.globals), Names: len(m.names) > 0}
	s.Inserted.Bytes = len(m.write(p.all()...))
	s.Lines = len(m.lines.old) > 0
	p.fuel.inserted.Bytes, p.fuel.inserted.Jumps, p.fuel.inserted.Depths = s.Inserted.Bytes, p.thread.jumps, p.depth.counted
	s.Inserted = p.fuel.inserted
	s.readSections(wasm)
	return s, nil
}

// readSections goes over a module that parse has read.
func (s *Summary) readSections(wasm []byte) {
	r := &reader{wasm, len(header), len(wasm)}
	for r.off < r.end {
		id := r.u8()
		part := r.sub(r.u32())
		sec := Section{sectionNames[id], id == secCustom, part.off, part.end - part.off}
		switch id {
		case secCustom:
			sec.Name = strings.ToValidUTF8(string(part.take(part.u32())), "?")
			if sec.Name == "producers" {
				s.readProducers(part)
			}
		case secTable:
			each(part, func(r *reader) { r.u8(); s.Tables = append(s.Tables, readLimits(r)) })
		case secMemory:
			each(part, func(r *reader) { s.Memories = append(s.Memories, readLimits(r)) })
		case secExport:
			each(part, s.readExport)
		case secStart:
			s.Start = true
		}
		s.Sections = append(s.Sections, sec)
	}
}

func readLimits(r *reader) Limits {
	low, high, bounded := limits(r)
	if !bounded {
		return Limits{low, -1}
	}
	return Limits{low, int64(high)}
}

var kindNames = []string{"function", "table", "memory", "global"}

func (s *Summary) readExport(r *reader) {
	e := Export{Name: strings.ToValidUTF8(string(r.take(r.u32())), "?")}
	if kind := r.u8(); int(kind) < len(kindNames) {
		e.Kind = kindNames[kind]
	} else {
		e.Kind = fmt.Sprintf("kind %d", kind)
	}
	r.u32()
	s.Exports = append(s.Exports, e)
}

// readProducers reads as far as it can: the section is for people.
func (s *Summary) readProducers(r *reader) {
	defer func() { _ = recover() }() // of an *Error
	text := func(r *reader) string { return strings.ToValidUTF8(string(r.take(r.u32())), "?") }
	each(r, func(r *reader) {
		field := text(r)
		each(r, func(r *reader) {
			p := Producer{Field: field, Name: text(r), Version: text(r)}
			s.Producers = append(s.Producers, p)
		})
	})
}
