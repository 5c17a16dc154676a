package guest

import (
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

var _ fwps.Observer = (*Module)(nil)

// maxNotices is how many events wait for a guest; what comes when so many do is
// dropped. A connection waits for none.
const maxNotices = 256

// A notice is an event that waits for the guest, with its own copy of what it is
// about.
type notice struct {
	event   uint64
	call    fwps.Call
	in      fwps.Incoming
	filter  fwpm.Filter
	context uint64
}

type notices struct {
	queue   chan *notice
	some    chan struct{} // there are
	dropped atomic.Uint64
}

func newNotices() notices {
	return notices{queue: make(chan *notice, maxNotices), some: make(chan struct{}, 1)}
}

// FlowEstablished implements fwps.Observer.
func (m *Module) FlowEstablished(e *fwps.Event) { m.notice(abi.EventFlowEstablished, e) }

// RedirectDone implements fwps.Observer.
func (m *Module) RedirectDone(e *fwps.Event) { m.notice(abi.EventRedirectDone, e) }

func (m *Module) notice(event uint64, e *fwps.Event) {
	n := &notice{event: event, in: *e.In, filter: fwpm.Filter{ID: e.Filter}, context: e.Context}
	n.call.In, n.call.Filter, n.call.Hop = &n.in, &n.filter, e.Hop
	n.in.Flow, n.in.Records, n.in.Pending, n.in.Groups = nil, nil, nil, nil // They are of the connection.
	select {
	case m.notices.queue <- n:
		signal(m.notices.some)
	default:
		m.notices.dropped.Add(1)
	}
}

// observe makes the module hear of what the guest decided, if the guest wants to.
func (i *instance) observe(c *fwps.Call, v *fwps.Verdict) {
	switch {
	case v.Redirect:
		v.Observer = i.m
	case c.In.Flow != nil && c.In.Layer.CanPendOperation() && c.Filter != nil && v.Action == fwp.ActionPermit: // It authorizes.
		c.ObserveFlow(i.m)
	}
}

// hearken delivers events until the module is closed.
func (m *Module) hearken() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.notices.some:
			m.hearing.Lock()
			bad := m.catchUp()
			m.hearing.Unlock()
			if bad {
				m.slow(nil)
			}
		}
	}
}

// deliver tells the guest of an event, and reports whether the guest failed. What it
// says to it does not count. The caller holds m.hearing.
func (m *Module) deliver(n *notice) (bad bool) {
	err := m.with(func(s *slot) error {
		i := s.inst
		if i.notify == nil { // A version that does not want to know took the place of the one that did.
			return nil
		}
		if err := encode(i.block, &n.call, m.rt.clock.read()); err != nil {
			return &refusal{err.Error()}
		}
		le.PutUint64(i.block[abi.ResponseOffset+abi.RespCookie:], n.context)
		return i.hear(n.event)
	})
	switch {
	case unasked(err): // It ends with events in its queue, or is in quarantine.
		m.notices.dropped.Add(1)
	case err != nil:
		m.log.Printf("%v", err)
	}
	return faulty(err)
}

// catchUp delivers the events that wait, up to one at which the guest fails. The caller
// holds m.hearing.
func (m *Module) catchUp() (bad bool) {
	for range len(m.notices.queue) {
		if m.deliver(<-m.notices.queue) {
			signal(m.notices.some)
			return true
		}
	}
	return false
}
