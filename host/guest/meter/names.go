package meter

import (
	"unicode/utf8"
)

// Limits of what is kept of a guest's names.
const (
	maxName  = 256
	maxNames = 4 << 20 // bytes
)

// readNames reads the names of functions from the custom section "name", so that
// a trap can say where it was. What is malformed is left out.
func (m *module) readNames(r *reader) {
	defer func() { _ = recover() }() // of an *Error: names may be wrong
	for r.off < r.end {
		kind, part := r.u8(), r.sub(r.u32())
		if kind != 1 {
			continue
		}
		last, total := -1, 0
		for range part.count() {
			index, name := part.u32(), part.take(part.u32())
			if int(index) <= last || int64(index) >= int64(len(m.funcs)) || len(name) > maxName || !utf8.Valid(name) || total > maxNames {
				continue
			}
			last, total = int(index), total+len(name)
			m.names = append(m.names, functionName{index, name})
		}
	}
}

type functionName struct {
	index uint32
	name  []byte
}

// nameSection is the custom section with the names that are left.
func (m *module) nameSection() []byte {
	if len(m.names) == 0 {
		return nil
	}
	list := uleb(nil, uint32(len(m.names)))
	for _, n := range m.names {
		list = vec(uleb(list, n.index), n.name)
	}
	return append(vec(nil, []byte("name")), vec([]byte{1}, list)...)
}
