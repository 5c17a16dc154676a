package carry

import (
	"net/netip"
	"sync"
)

// Shares are of something that hosts take. One has no more than are left for others, so that one
// which takes all that it can leaves as many.
type Shares struct {
	most int64

	mu    sync.Mutex
	taken int64
	each  map[netip.Addr]int64
}

// NewShares returns so many.
func NewShares(most int64) *Shares { return &Shares{most: most, each: map[netip.Addr]int64{}} }

// Take takes one for a host and reports whether there was one. The zero address is of no host, and
// has what is left.
func (s *Shares) Take(host netip.Addr) bool {
	host = network(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.most - s.taken
	if left <= 0 || host.IsValid() && s.each[host] >= left {
		return false
	}
	s.taken++
	s.each[host]++
	return true
}

// Leave gives one back that a host took.
func (s *Shares) Leave(host netip.Addr) {
	host = network(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.each[host]--; s.each[host] == 0 {
		delete(s.each, host)
	}
}

// Taken are how many are.
func (s *Shares) Taken() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// network is what a host has of addresses: of IPv6 a network.
func network(host netip.Addr) netip.Addr {
	if host.Is6() {
		host = netip.PrefixFrom(host.WithZone(""), 64).Masked().Addr()
	}
	return host
}
