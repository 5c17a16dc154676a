package fwps

import (
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// An Observer hears what became of connections that a callout decided. It is told
// on the way of the connection and must not wait; what it is shown is not to be
// kept or changed.
type Observer interface {
	// FlowEstablished hears that a flow is established which it observes.
	FlowEstablished(e *Event)
	// RedirectDone hears that a connection was sent to where the callout redirected
	// it. It hears of it before the proxy does, or at the same time.
	RedirectDone(e *Event)
}

// An Event is what an Observer hears.
type Event struct {
	In      *Incoming     // of a redirect, Remote is where it was meant for
	Filter  fwpm.FilterID // for which the callout decided
	Context uint64        // what the callout associated with the flow at the layer it decided, else 0
	Hop     *redirect.Hop // of a redirect that is on record; never changed
}

// observer is what a flow knows of one.
type observer struct {
	who     Observer
	layer   fwpm.LayerID
	filter  fwpm.FilterID
	callout fwpm.CalloutID
}

// ObserveFlow makes o hear of it when the flow of the call is established. Once it
// is, and where there is no flow, it does nothing.
func (c *Call) ObserveFlow(o Observer) {
	if f := c.In.Flow; f != nil {
		c.singular()
		f.observe(observer{o, c.In.Layer, c.Filter.ID, c.Filter.Callout})
	}
}

// observe allocates nothing for the first, which is the only one as a rule.
func (f *Flow) observe(o observer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settled {
		return
	}
	for _, known := range f.observers {
		if known.who == o.who && known.callout == o.callout { // The flow is authorized twice.
			return
		}
	}
	if f.observers == nil {
		f.observers = f.first[:0]
	}
	f.observers = append(f.observers, o)
	f.observed.Store(true)
}

// Observed reports whether somebody is to hear that the flow is established.
func (f *Flow) Observed() bool { return f.observed.Load() }

// Establish tells those who observe the flow that it is established, once. in is
// what FLOW_ESTABLISHED was asked.
func (f *Flow) Establish(in *Incoming) {
	f.mu.Lock()
	told := f.observers
	f.settled, f.observers = true, nil
	f.observed.Store(false)
	f.mu.Unlock()
	for _, o := range told {
		o.who.FlowEstablished(&Event{In: in, Filter: o.filter, Context: f.Context(o.layer, o.callout)})
	}
}
