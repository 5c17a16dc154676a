package meter

import (
	"bytes"
	"debug/dwarf"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// linesOf are the lines of a module's code, as they are read here.
func linesOf(t *testing.T, wasm []byte) *lines {
	t.Helper()
	m := parse(wasm)
	m.lines.read()
	return &m.lines
}

// What is read is what package debug/dwarf reads.
func TestLineTablesAreReadAsTheyAre(t *testing.T) {
	for _, file := range []string{"../testdata/lines.wasm", "testdata/dwarf5.wasm"} { // of version 4 and 5
		wasm, err := os.ReadFile(file)
		require.NoError(t, err)
		l := linesOf(t, wasm)
		require.NotEmpty(t, l.old, file)
		got, at := map[string]bool{}, map[uint32][]string{}
		for _, r := range l.old {
			got[place(l, r)] = true
			at[r.at] = append(at[r.at], place(l, r))
		}
		s := l.sections
		d, err := dwarf.New(s[".debug_abbrev"], nil, nil, s[".debug_info"], s[".debug_line"], nil, s[".debug_ranges"], s[".debug_str"])
		require.NoError(t, err)
		for _, more := range []string{".debug_line_str", ".debug_addr", ".debug_str_offsets", ".debug_rnglists"} {
			if s[more] != nil {
				require.NoError(t, d.AddSection(more, s[more]))
			}
		}
		rows := 0
		units := d.Reader()
		for unit, _ := units.Next(); unit != nil; unit, _ = units.Next() {
			table, err := d.LineReader(unit)
			require.NoError(t, err)
			var e dwarf.LineEntry
			for table != nil && table.Next(&e) == nil {
				rows++
				want := fmt.Sprintf("%x %s:%d:%d", uint32(e.Address), e.File.Name, e.Line, e.Column)
				if e.EndSequence {
					want = fmt.Sprintf("%x :0:0", uint32(e.Address))
				}
				require.True(t, got[want], "%s: %s, not %v", file, want, at[uint32(e.Address)])
			}
			units.SkipChildren()
		}
		require.Len(t, l.old, rows, file)
	}
}

func place(l *lines, r row) string {
	p, file := l.positions[r.pos], ""
	if p.file > 0 {
		file = l.files[p.file-1]
	}
	return fmt.Sprintf("%x %s:%d:%d", r.at, file, p.line, p.column)
}

// A table that says that it has more of something than there is has none of it, and takes
// no memory for it.
func TestHostileLineTables(t *testing.T) {
	head := []byte{1, 1, 1, 0xfb, 14, 10, 0, 1, 1, 1, 1, 0, 0, 0, 1} // up to the lengths of the opcodes
	table := func(version byte, names ...byte) []byte {
		begin := append(head[:len(head):len(head)], names...)
		b := []byte{version, 0}
		if version == 5 {
			b = append(b, 4, 0)
		}
		b = append(append(b, le32(uint32(len(begin)))...), begin...)
		return unit32(append(b, 1, 2, 9, 1, 0, 1, 1)) // copy, advance_pc, copy, end
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x1f} // 2^33-1
	for name, line := range map[string][]byte{
		"folders without a form": table(5, append([]byte{0}, huge...)...),
		"many folders":           table(5, append([]byte{1, 1, formString}, huge...)...),
		"files without a form":   table(5, append([]byte{0, 0, 0}, 0xff, 0xff, 0xff, 0xff, 7)...),
		"a path without an end":  table(4, append(bytes.Repeat([]byte{'a'}, 1<<20), 0, 0, 0)...),
		"a text far away":        table(5, 1, 1, formLineStrp, 1, 0xff, 0xff, 0xff, 0xff, 0, 0),
		"many files":             table(4, append(append([]byte{0}, bytes.Repeat([]byte{'a', 0, 0, 0, 0}, maxEntries+1)...), 0)...),
		"a header over the end":  append([]byte{9, 0, 0, 0}, 4, 0, 0xff, 0xff, 0xff, 0xff, 1, 1, 1),
		"a unit over the end":    {0xff, 0xff, 0xff, 0xff, 4, 0},
	} {
		l := lines{sections: map[string][]byte{".debug_line": append(line, table(4, 0, 'a', 0, 0, 0, 0, 0)...)}}
		l.read()
		require.Empty(t, l.positionsOf(""), name)
		if name != "a unit over the end" {
			require.Equal(t, []string{"0 a:1:0", "9 a:1:0"}, l.positionsOf("a"), "%s: the table after it is read", name)
		}
	}
}

// positionsOf are the rows of a file.
func (l *lines) positionsOf(file string) (out []string) {
	for _, r := range l.old {
		if p := l.positions[r.pos]; p.file > 0 && l.files[p.file-1] == file || p.file == 0 && p.line > 0 && file == "" {
			out = append(out, place(l, r))
		}
	}
	return out
}

// Units whose abbreviations are all within each other take no longer than others.
func TestManyUnitsAreReadAtOnce(t *testing.T) {
	const units = 1 << 16
	var info []byte
	for n := range uint32(units) {
		info = append(info, unit32(append(append([]byte{4, 0}, le32(n)...), 4, formFlagPresent))...)
	}
	l := lines{sections: map[string][]byte{".debug_info": info, ".debug_abbrev": bytes.Repeat([]byte{formFlagPresent}, 1<<21)}}
	began := time.Now()
	l.unitFolders()
	require.Less(t, time.Since(began), time.Minute, "it takes milliseconds")
}
