package meter

import (
	"cmp"
	"slices"
)

// Go's linker leaves out each few zeros of its data, and begins a segment behind them: 40,000
// in a module of 3 MB. The host keeps them all, a list for each instance besides, and works
// out the place of each whenever an instance starts. So those that are close to each other
// become one, with the zeros between them.

// maxZeros is how many take the place of a segment: about what the host keeps for one.
const maxZeros = 64

// A segment is one of the data section.
type segment struct {
	head  []byte // that it is active, and where
	at    uint64
	fixed bool // at is known
	data  []byte
}

func (s *segment) end() uint64 { return s.at + uint64(len(s.data)) }

// segments copies the data section. It is left as it is where code can name segments by their
// numbers, where somebody else may have written to the memory, and where it matters which
// segment comes first.
func (m *module) segments(section reader) []byte {
	r := section
	all := make([]segment, r.count())
	fixed := m.ownMemory && !m.dataCount
	for k := range all {
		all[k] = m.readData(&r)
		fixed = fixed && all[k].fixed
	}
	if !fixed || r.off < r.end { // More is not valid, and stays so.
		return section.rest()
	}
	slices.SortStableFunc(all, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	var joined []segment
	for _, s := range all {
		n := len(joined)
		if n == 0 || s.at > joined[n-1].end()+maxZeros {
			joined = append(joined, s)
			continue
		}
		last := &joined[n-1]
		if s.at < last.end() {
			return section.rest()
		}
		last.data = append(append(last.data, make([]byte, s.at-last.end())...), s.data...)
	}
	out := uleb(nil, uint32(len(joined)))
	for _, s := range joined {
		out = vec(append(out, s.head...), s.data)
	}
	return out
}
