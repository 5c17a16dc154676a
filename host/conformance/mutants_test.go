package conformance

import (
	"context"
	"net/netip"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A mutant is the engine's arbiter with another policy or other callouts.
type mutant struct {
	*host.Engine
	policy  func(*fwpm.Policy)
	callout func(fwps.Callout) fwps.Callout
}

func (m *mutant) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	p, o := m.Enforced(), m.Options()
	m.policy(p)
	prog, err := arbitrate.Compile(p, arbitrate.Options{PrefixMatchesStart: o.PrefixMatchesStart, FaultContinues: o.FaultContinues,
		PendTimeout: o.PendTimeout, Lookup: func(id fwpm.CalloutID) *arbitrate.Slot {
			s := &arbitrate.Slot{ID: id}
			if c, h := m.Slot(id).Callout(); c != nil {
				s.Set(m.callout(c), h)
			}
			return s
		}})
	if err != nil {
		panic(err) // The policy was right before it was changed.
	}
	prog.Classify(ctx, in, d)
	m.Decided(in, d)
}

func policies(change func(*fwpm.Policy)) Wrap {
	return func(e *host.Engine) fwps.Classifier {
		return &mutant{e, change, func(c fwps.Callout) fwps.Callout { return c }}
	}
}

func filters(change func(*fwpm.Filter)) Wrap {
	return policies(func(p *fwpm.Policy) {
		for i := range p.Filters {
			change(&p.Filters[i])
		}
	})
}

func callouts(change func(fwps.Callout) fwps.Callout) Wrap {
	return func(e *host.Engine) fwps.Classifier {
		return &mutant{e, func(*fwpm.Policy) {}, change}
	}
}

// calls changes what callouts see.
func calls(change func(*fwps.Call)) Wrap {
	return callouts(func(c fwps.Callout) fwps.Callout {
		return fwps.CalloutFunc(func(ctx context.Context, call *fwps.Call, v *fwps.Verdict) error {
			change(call)
			return c.Classify(ctx, call, v)
		})
	})
}

// verdicts changes what callouts say.
func verdicts(change func(*fwps.Verdict)) Wrap {
	return callouts(func(c fwps.Callout) fwps.Callout {
		return fwps.CalloutFunc(func(ctx context.Context, call *fwps.Call, v *fwps.Verdict) error {
			err := c.Classify(ctx, call, v)
			change(v)
			return err
		})
	})
}

// seen is a classifier with something before, after or in the place of it.
type seen struct {
	fwps.Classifier
	classify   func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision)
	generation func(c fwps.Classifier, l fwpm.LayerID) uint64
}

func (s seen) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	if s.classify == nil {
		s.Classifier.Classify(ctx, in, d)
		return
	}
	s.classify(s.Classifier, in, d)
}

func (s seen) Generation(l fwpm.LayerID) uint64 {
	if s.generation == nil {
		return s.Classifier.Generation(l)
	}
	return s.generation(s.Classifier, l)
}

// decided changes decisions before they are traced.
func decided(change func(*fwps.Incoming, *fwps.Decision)) Wrap {
	return func(e *host.Engine) fwps.Classifier {
		return seen{Classifier: e, classify: func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
			c.Classify(context.Background(), in, d)
			change(in, d)
		}}
	}
}

// asked changes what is asked about, in the trace as well.
func asked(change func(*fwps.Incoming)) Wrap {
	return func(e *host.Engine) fwps.Classifier {
		return seen{Classifier: e, classify: func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
			change(in)
			c.Classify(context.Background(), in, d)
		}}
	}
}

func without(f fwp.ConditionFlags) func(*fwps.Incoming) {
	return func(in *fwps.Incoming) { in.Flags &^= f }
}

// sees changes what the enforcer asks and is answered; the trace is of the engine.
func sees(classify func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision)) func(*ale.Options) {
	return func(o *ale.Options) { o.Classifier = seen{Classifier: o.Classifier, classify: classify} }
}

func generations(g func(fwps.Classifier, fwpm.LayerID) uint64) func(*ale.Options) {
	return func(o *ale.Options) { o.Classifier = seen{Classifier: o.Classifier, generation: g} }
}

// skips does not ask, and permits.
func skips(which func(*fwps.Incoming) bool) func(*ale.Options) {
	return sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		if which(in) {
			d.Reset(in)
			return
		}
		c.Classify(context.Background(), in, d)
	})
}

func skipsLayer(l fwpm.LayerID) func(*ale.Options) {
	return skips(func(in *fwps.Incoming) bool { return in.Layer == l })
}

// redirects changes what callouts made of a connect request.
func redirects(change func(*fwps.Incoming, *fwps.ConnectRequest)) func(*ale.Options) {
	return sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		c.Classify(context.Background(), in, d)
		if d.Connect != nil && d.Redirected() {
			change(in, d.Connect)
		}
	})
}

// asV6 asks AUTH_CONNECT_V6 about those that CONNECT_REDIRECT_V6 was asked about.
func asV6() func(*ale.Options) {
	mapped := map[uint64]netip.AddrPort{}
	return sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		switch to, ok := mapped[in.EndpointID]; {
		case in.Layer == fwpm.LayerALEConnectRedirectV6 && in.Remote.Addr().Is4In6():
			mapped[in.EndpointID] = in.Remote
		case ok && in.Layer == fwpm.LayerALEAuthConnectV4:
			in.Layer, in.Remote = fwpm.LayerALEAuthConnectV6, to
		}
		c.Classify(context.Background(), in, d)
	})
}

// ticking is a clock that goes on each time it is looked at.
func ticking() func() time.Time {
	now := time.Unix(0, 0)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func stores(wrap func(redirect.Store) redirect.Store) func(*ale.Options) {
	return func(o *ale.Options) { o.Store = wrap(o.Store) }
}

// A lateStore keeps a record when it is used for something else.
type lateStore struct {
	redirect.Store
	late []*redirect.Hop
}

func (s *lateStore) Put(h *redirect.Hop) error {
	s.late = append(s.late, h)
	return nil
}

func (s *lateStore) Release(serial uint64) error {
	for _, h := range s.late {
		_ = s.Store.Put(h)
	}
	s.late = nil
	return s.Store.Release(serial)
}

type noPut struct{ redirect.Store }

func (noPut) Put(*redirect.Hop) error { return nil }

type noRelease struct{ redirect.Store }

func (noRelease) Release(uint64) error { return nil }

type noCount struct{ redirect.Store }

func (s noCount) Acquire(serial uint64) (*redirect.Hop, error) {
	h, err := s.Store.Acquire(serial)
	if err == nil {
		_ = s.Store.Release(serial)
	}
	return h, err
}

type noRetain struct{ redirect.Store }

func (noRetain) Retain(uint64) error { return nil }

type noReplace struct{ redirect.Store }

func (noReplace) Replace(*redirect.Hop) error { return redirect.ErrNotFound }
