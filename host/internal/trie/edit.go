package trie

import "math/bits"

// Edit returns the value of a key to be changed, a zero one if there is none. It
// is good until the next call.
func (m *Map[V]) Edit(e *Edit, key uint64) *V {
	c := &m.root
	for shift := top; ; shift -= 4 {
		if c.branch == nil {
			if c.find(key) != nil {
				c.own(e)
				return c.find(key)
			}
			if free := zeros(c.tags); free != 0 {
				m.n++
				return c.put(e, bits.TrailingZeros64(free)/8, key)
			}
			c.split(e, shift)
		}
		c.own(e)
		c = &c.branch.kids[key>>shift%fan]
	}
}

// own makes what the child is e's own.
func (c *child[V]) own(e *Edit) {
	switch {
	case c.branch != nil && c.branch.owner != e:
		b := *c.branch
		b.owner = e
		c.branch = &b
	case c.leaf != nil && c.leaf.owner != e:
		l := *c.leaf
		l.owner = e
		c.leaf = &l
	}
}

// put takes a free slot for a key.
func (c *child[V]) put(e *Edit, i int, key uint64) *V {
	if c.leaf == nil {
		c.leaf = &leaf[V]{owner: e}
	}
	c.own(e)
	c.tags |= tag(key) << (8 * i)
	s := &c.leaf.slots[i]
	s.key = key
	return &s.value
}

// add takes the first free slot; there must be one.
func (c *child[V]) add(e *Edit, s *slot[V]) {
	*c.put(e, bits.TrailingZeros64(zeros(c.tags))/8, s.key) = s.value
}

// split makes a full leaf a branch.
func (c *child[V]) split(e *Edit, shift int) {
	b := &branch[V]{owner: e}
	for i := range c.leaf.slots {
		s := &c.leaf.slots[i]
		b.kids[s.key>>shift%fan].add(e, s)
	}
	*c = child[V]{branch: b}
}

// Delete removes a key.
func (m *Map[V]) Delete(e *Edit, key uint64) {
	if m.Get(key) == nil {
		return
	}
	m.n--
	var path [64/4 + 1]*child[V]
	depth := 0
	c := &m.root
	for shift := top; c.branch != nil; shift -= 4 {
		c.own(e)
		path[depth], depth = c, depth+1
		c = &c.branch.kids[key>>shift%fan]
	}
	c.own(e)
	for i := range width {
		if s := &c.leaf.slots[i]; c.tags>>(8*i)&0xff != 0 && s.key == key {
			*s, c.tags = slot[V]{}, c.tags&^(0xff<<(8*i))
		}
	}
	if c.tags == 0 {
		c.leaf = nil
	}
	for depth > 0 && path[depth-1].merge(e) {
		depth--
	}
}

// merge makes a branch with little in it a leaf. Half of a leaf stays free, so that
// the next key does not split it again.
func (c *child[V]) merge(e *Edit) bool {
	n := 0
	for i := range c.branch.kids {
		k := &c.branch.kids[i]
		if n += used(k.tags); k.branch != nil || n > width/2 {
			return false
		}
	}
	var merged child[V]
	for i := range c.branch.kids {
		k := &c.branch.kids[i]
		for j := range width {
			if k.tags>>(8*j)&0xff != 0 {
				merged.add(e, &k.leaf.slots[j])
			}
		}
	}
	*c = merged
	return true
}

// used is how many bytes of x are not zero. Tags are odd.
func used(x uint64) int { return bits.OnesCount64(x & ones) }
