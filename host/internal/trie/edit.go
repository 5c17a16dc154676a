package trie

import "slices"

// Edit returns the value of a key to be changed, a zero one if there is none. It
// is good until the next call.
func (m *Map[V]) Edit(e *Edit, key uint64) *V {
	c := &m.root
	for shift := top; ; shift -= step {
		c.own(e)
		if c.branch == nil {
			if v := c.find(key); v != nil {
				return v
			}
			if len(c.slots) < width {
				m.n++
				return c.add(slot[V]{key: key})
			}
			c.split(e, shift)
		}
		c = &c.branch[key>>shift%fan]
	}
}

// own makes what is below the child e's own.
func (c *child[V]) own(e *Edit) {
	if c.owner == e {
		return
	}
	c.owner = e
	if c.branch != nil {
		b := *c.branch
		c.branch = &b
		return
	}
	c.slots = slices.Clone(c.slots)
}

// add takes one more slot, of which there must be room. The slots are the caller's
// own.
func (c *child[V]) add(s slot[V]) *V {
	n := len(c.slots)
	c.tags |= tag(s.key) << (8 * n)
	more := make([]slot[V], n+1)
	copy(more, c.slots)
	more[n] = s
	c.slots = more
	return &more[n].value
}

// drop gives a slot up: the last one takes its place.
func (c *child[V]) drop(key uint64) {
	i := slices.IndexFunc(c.slots, func(s slot[V]) bool { return s.key == key })
	last := len(c.slots) - 1
	c.slots[i] = c.slots[last]
	c.tags = c.tags&^(0xff<<(8*i))&^(0xff<<(8*last)) | tag(c.slots[i].key)<<(8*i)
	if i == last {
		c.tags &^= 0xff << (8 * i)
	}
	if c.slots = slices.Clone(c.slots[:last]); last == 0 {
		*c = child[V]{}
	}
}

// split makes full slots a branch.
func (c *child[V]) split(e *Edit, shift int) {
	b := new(branch[V])
	for _, s := range c.slots {
		k := &b[s.key>>shift%fan]
		k.owner = e
		k.add(s)
	}
	*c = child[V]{branch: b, owner: e}
}

// Delete removes a key.
func (m *Map[V]) Delete(e *Edit, key uint64) {
	if m.Get(key) == nil {
		return
	}
	m.n--
	var path [64/step + 1]*child[V]
	depth := 0
	c := &m.root
	for shift := top; ; shift -= step {
		c.own(e)
		if c.branch == nil {
			break
		}
		path[depth], depth = c, depth+1
		c = &c.branch[key>>shift%fan]
	}
	c.drop(key)
	for depth > 0 && path[depth-1].merge(e) {
		depth--
	}
}

// merge makes a branch with little in it slots. Half of them stay free, so that the
// next key does not make it a branch again.
func (c *child[V]) merge(e *Edit) bool {
	n := 0
	for i := range c.branch {
		k := &c.branch[i]
		if n += len(k.slots); k.branch != nil || n > width/2 {
			return false
		}
	}
	merged := child[V]{owner: e}
	for i := range c.branch {
		for _, s := range c.branch[i].slots {
			merged.add(s)
		}
	}
	if *c = merged; n == 0 {
		*c = child[V]{}
	}
	return true
}
