// Package policyfuzz searches for connections that a policy decides in a way that
// cannot be meant: a callout fails, does not end or redirects where it cannot, a
// proxy's connection comes back to the proxy, the same question has two answers, an
// invariant is broken.
package policyfuzz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// Options configure a search.
type Options struct {
	World *policytest.World // Required.
	// Seed makes two searches the same.
	Seed uint64
	// Limit is how many connections are tried. Required: of none nothing is found.
	Limit int
	// Progress is a number that grows when code of a callout runs that did not run
	// before. Optional.
	Progress func() int
	// Numbers are constants of callouts' code: ports and addresses to try. Optional.
	Numbers []uint32
	// Tried hears of each connection that was tried. Optional.
	Tried func(n int)
}

// A Finding is a fault with the smallest connection that has it.
type Finding struct {
	policytest.Fault
	In    fwps.Incoming
	Tried int // how many connections there were until it was found
}

// Search tries connections and returns what it found: each fault once.
func Search(ctx context.Context, o Options) ([]Finding, error) {
	s := &searcher{Options: o, space: policytest.Boundaries(o.World), random: rand.New(rand.NewPCG(o.Seed, 0)), seen: map[string]bool{}, reached: map[string]bool{}}
	if s.Progress == nil {
		s.Progress = func() int { return 0 }
	}
	s.space.Numbers(o.Numbers)
	s.progress = s.Progress()
	for s.tried < o.Limit && ctx.Err() == nil {
		if err := s.step(ctx, s.next()); err != nil {
			return nil, err
		}
	}
	return s.found, context.Cause(ctx)
}

type searcher struct {
	Options
	space    *policytest.Space
	random   *rand.Rand
	corpus   []fwps.Incoming // each reached something that none before it did
	reached  map[string]bool
	progress int
	seen     map[string]bool // faults
	found    []Finding
	tried    int
}

// boundary is how many connections of ten are of the boundaries of the policy; the
// others are changed ones that reached something.
const boundary = 4

func (s *searcher) next() fwps.Incoming {
	if len(s.corpus) == 0 || s.random.IntN(10) < boundary {
		return s.space.At(s.random.IntN(s.space.Size()))
	}
	in := s.corpus[s.random.IntN(len(s.corpus))]
	for range 1 + s.random.IntN(3) {
		in = s.mutate(in)
	}
	return in
}

// mutate changes one part of a connection: to that of another one, or a little.
func (s *searcher) mutate(in fwps.Incoming) fwps.Incoming {
	other := s.space.At(s.random.IntN(s.space.Size()))
	if other.Inbound != in.Inbound {
		return other // Their ends stand elsewhere.
	}
	switch s.random.IntN(9) {
	case 0:
		in.AppID = other.AppID
	case 1:
		in.UserID = other.UserID
	case 2:
		in.Protocol = other.Protocol
	case 3:
		in.Remote = netip.AddrPortFrom(other.Remote.Addr(), in.Remote.Port())
	case 4:
		in.Remote = netip.AddrPortFrom(in.Remote.Addr(), other.Remote.Port())
	case 5:
		in.Remote = netip.AddrPortFrom(in.Remote.Addr(), uint16(1+s.random.IntN(0xffff)))
	case 6:
		in.Remote = netip.AddrPortFrom(flip(in.Remote.Addr(), s.random), in.Remote.Port())
	case 7:
		in.UserKnown = !in.UserKnown
	case 8:
		in.Other = other.Other
	}
	if in.Inbound && in.Local.Addr().Is4() != in.Remote.Addr().Is4() {
		return other
	}
	return in
}

// flip changes a bit of an address.
func flip(a netip.Addr, r *rand.Rand) netip.Addr {
	b := a.AsSlice()
	n := r.IntN(len(b) * 8)
	b[n/8] ^= 1 << (n % 8)
	if c, ok := netip.AddrFromSlice(b); ok && !c.IsUnspecified() {
		return c
	}
	return a
}

func (s *searcher) step(ctx context.Context, in fwps.Incoming) error {
	f, err := s.try(ctx, in)
	if err != nil || f == nil {
		return err
	}
	if s.seen[key(f)] {
		return nil
	}
	s.seen[key(f)] = true
	at := s.tried
	small, f, err := s.shrink(ctx, in, f)
	if err != nil {
		return err
	}
	s.found = append(s.found, Finding{*f, small, at})
	return nil
}

func key(f *policytest.Fault) string { return fmt.Sprint(f.Kind, " ", f.Who) }

// try takes a connection through the policy and keeps it if it reached something.
func (s *searcher) try(ctx context.Context, in fwps.Incoming) (*policytest.Fault, error) {
	s.tried++
	if s.Tried != nil {
		s.Tried(s.tried)
	}
	f, way, err := s.World.Judge(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", policytest.Describe(&in), err)
	}
	now := s.Progress()
	if now > s.progress || !s.reached[way] {
		s.progress, s.reached[way] = now, true
		s.corpus = append(s.corpus, in)
	}
	return f, nil
}
