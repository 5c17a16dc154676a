package arbitrate

import "unsafe"

// note counts a filter into what is known of all of the bucket.
func (b *bucket) note(e *entry) { b.most, b.subs = max(b.most, e.weight), b.subs|1<<e.place }

// others is the list but for its first filter.
func (b *bucket) others() []entry { return unsafe.Slice(b.more, max(b.n, 1)-1) }

// list is a copy of the list.
func (b *bucket) list() []entry {
	if b.n == 0 {
		return nil
	}
	return append([]entry{b.head}, b.others()...)
}

// last is the last of the list, which is not empty.
func (b *bucket) last() *entry {
	if o := b.others(); len(o) > 0 {
		return &o[len(o)-1]
	}
	return &b.head
}

// set makes the list l, which nobody may change afterwards.
func (b *bucket) set(l []entry) {
	b.head, b.more, b.n = entry{}, nil, uint8(len(l))
	if len(l) > 0 {
		b.head = l[0]
	}
	if len(l) > 1 {
		b.more = &l[1]
	}
}

// insert puts a filter into the list.
func (b *bucket) insert(e *entry) {
	switch {
	case b.n == 0:
		b.head = *e
	case before(e, &b.head) < 0:
		b.more = unsafe.SliceData(with(b.others(), &b.head))
		b.head = *e
	default:
		b.more = unsafe.SliceData(with(b.others(), e))
	}
	b.n++
}

// remove takes a filter out of the list, and reports whether it was there.
func (b *bucket) remove(e *entry) bool {
	others := b.others()
	switch at, found := locate(others, e); {
	case found:
		b.more = unsafe.SliceData(without(others, at))
	case b.n == 0 || before(&b.head, e) != 0:
		return false
	case len(others) == 0:
		b.head = entry{}
	default:
		b.head, b.more = others[0], unsafe.SliceData(without(others, 0))
	}
	b.n--
	return true
}
