package arbitrate

import (
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Slot is where a registered callout is found. Readers never lock.
type Slot struct {
	ID      fwpm.CalloutID
	current atomic.Pointer[registration]
	pended  atomic.Int32 // classifications that its callout holds
	flows   atomic.Int32 // flow contexts that its callout has
}

type registration struct {
	callout    fwps.Callout
	handle     redirect.Handle
	reclassify bool // it is a fwps.Reclassifier
	number     uint64
}

// registrations numbers them, from 1.
var registrations atomic.Uint64

// Set registers c with its redirect handle; a nil c takes the callout away.
func (s *Slot) Set(c fwps.Callout, h redirect.Handle) {
	if c == nil {
		s.current.Store(nil)
		return
	}
	_, reclassify := c.(fwps.Reclassifier)
	s.current.Store(&registration{c, h, reclassify, registrations.Add(1)})
}

// Callout is what is registered, with its redirect handle; nil if nothing is.
func (s *Slot) Callout() (fwps.Callout, redirect.Handle) {
	if r := s.current.Load(); r != nil {
		return r.callout, r.handle
	}
	return nil, 0
}

// registration is the number of what is registered, 0 if nothing is.
func (s *Slot) registration() uint64 {
	if r := s.current.Load(); r != nil {
		return r.number
	}
	return 0
}

// Holds counts the classifications that the callout holds.
func (s *Slot) Holds() *atomic.Int32 { return &s.pended }

// Busy reports whether the callout holds classifications or has flow contexts:
// then it cannot be unregistered (CO-REG-05, AMB-44).
func (s *Slot) Busy() bool { return s.pended.Load() > 0 || s.flows.Load() > 0 }

// Flows counts the flow contexts that the callout has.
func (s *Slot) Flows() *atomic.Int32 { return &s.flows }
