package percore

import "sync/atomic"

// A Quota is how many hops a store takes. Its shards have shares of it, so that
// they do not meet at every hop.
type Quota struct {
	limit int64
	chunk int64 // that a share grows and shrinks by
	left  atomic.Int64
}

// A Share is room for hops of one shard, under that shard's lock.
type Share struct{ room int64 }

// NewQuota is for so many hops in so many shards.
func NewQuota(limit, shards int) *Quota {
	q := &Quota{limit: int64(limit), chunk: max(1, min(256, int64(limit/(8*shards))))}
	q.left.Store(q.limit)
	return q
}

// Limit is how many hops there may be.
func (q *Quota) Limit() int64 { return q.limit }

// Take takes room for one hop; false if the share has none and cannot grow.
func (q *Quota) Take(s *Share) bool {
	if s.room == 0 {
		s.room = q.grow()
	}
	if s.room == 0 {
		return false
	}
	s.room--
	return true
}

func (q *Quota) grow() int64 {
	for {
		left := q.left.Load()
		n := min(left, q.chunk)
		if n == 0 || q.left.CompareAndSwap(left, left-n) {
			return n
		}
	}
}

// Give gives the room of one hop back.
func (q *Quota) Give(s *Share) {
	if s.room++; s.room > 2*q.chunk {
		s.room -= q.chunk
		q.left.Add(q.chunk)
	}
}

// Collect takes all of a share back. A store does so with each when one cannot
// grow, and tries again: so the limit is exact.
func (q *Quota) Collect(s *Share) {
	q.left.Add(s.room)
	s.room = 0
}

// Left is what is in no share.
func (q *Quota) Left() int64 { return q.left.Load() }
