package carry

import (
	"net/netip"
	"sync"
)

// Shares are of something that several take. One has no more than are left for others, so that one
// which takes all that it can leaves as many.
type Shares struct {
	most int64

	mu    sync.Mutex
	taken int64
	each  map[Taker]int64
}

// A Taker is who takes: a host or a user. The zero value is nobody, who has what is left.
type Taker struct {
	host  netip.Addr
	user  uint32
	known bool
}

// Host is who has an address: of IPv6 a network of 64 bits.
func Host(a netip.Addr) Taker {
	if a.Is6() {
		a = netip.PrefixFrom(a.WithZone(""), 64).Masked().Addr()
	}
	return Taker{host: a, known: a.IsValid()}
}

// User is a user of this system.
func User(id uint32) Taker { return Taker{user: id, known: true} }

// NewShares returns so many.
func NewShares(most int64) *Shares { return &Shares{most: most, each: map[Taker]int64{}} }

// Take takes one and reports whether there was one.
func (s *Shares) Take(by Taker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.most - s.taken
	if left <= 0 || by.known && s.each[by] >= left {
		return false
	}
	s.taken++
	s.each[by]++
	return true
}

// Leave gives one back.
func (s *Shares) Leave(by Taker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.each[by]--; s.each[by] == 0 {
		delete(s.each, by)
	}
}

// Taken are how many are.
func (s *Shares) Taken() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
