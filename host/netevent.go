package host

import (
	"net/netip"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// listeners are those who hear of net events, as one value that is replaced.
type listeners struct {
	now      func() time.Time
	subs     []*netSubscriber
	keywords fwpm.NetEventKeyword
}

type netSubscriber struct {
	s    *Session
	tell func(fwpm.NetEvent)
}

type eventOptions struct {
	collect  bool
	keywords fwpm.NetEventKeyword
	subs     []*netSubscriber
}

// NetEventSubscribe is FwpmNetEventSubscribe0: tell hears of blocks, of permits if
// the keywords say so, and of redirects. It is fwp.ErrNetEventsDisabled while
// nothing is collected.
//
// tell runs on the goroutine of the operation, which waits for it: it hands the
// event over and returns. Close unsubscribes too.
func (s *Session) NetEventSubscribe(tell func(fwpm.NetEvent)) (unsubscribe func(), err error) {
	e, sub := s.e, &netSubscriber{s, tell}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case s.ended():
		return nil, s.fail(fwp.ErrSessionAborted)
	case tell == nil:
		return nil, s.fail(fwp.ErrInvalidParameter)
	case !e.events.collect:
		return nil, s.fail(fwp.ErrNetEventsDisabled) // EVT-01
	}
	e.listen(func(o *eventOptions) { o.subs = append(o.subs, sub) })
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.unlisten(func(n *netSubscriber) bool { return n == sub })
	}, nil
}

// listen changes who hears of net events. The caller holds e.mu.
func (e *Engine) listen(change func(*eventOptions)) {
	o := e.events
	o.subs = slices.Clone(o.subs)
	change(&o)
	e.events = o
	if !o.collect || len(o.subs) == 0 {
		e.heard.Store(nil)
		return
	}
	e.heard.Store(&listeners{now: e.opts.Now, subs: o.subs, keywords: o.keywords})
}

func (e *Engine) unlisten(which func(*netSubscriber) bool) {
	e.listen(func(o *eventOptions) { o.subs = slices.DeleteFunc(o.subs, which) })
}

// SetOption is FwpmEngineSetOption0. It cannot be part of a transaction, nor be
// used by a dynamic session (BFE-TXN-05).
func (s *Session) SetOption(option fwpm.EngineOption, value uint32) error {
	return s.call(func(t *txn) error {
		switch {
		case t != nil:
			return s.fail(fwp.ErrTxnInProgress)
		case s.o.Dynamic:
			return s.fail(fwp.ErrDynamicSessionInProgress)
		}
		return s.fail(s.e.setOption(option, value))
	})
}

func (e *Engine) setOption(option fwpm.EngineOption, value uint32) error {
	const keywords = uint32(fwpm.NetEventKeywordPortScanningDrop)<<1 - 1
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case option == fwpm.EngineCollectNetEvents && value <= 1:
		e.listen(func(o *eventOptions) { o.collect = value == 1 })
	case option == fwpm.EngineNetEventMatchAnyKeywords && value <= keywords:
		e.listen(func(o *eventOptions) { o.keywords = fwpm.NetEventKeyword(value) })
	default:
		return fwp.ErrInvalidParameter
	}
	return nil
}

// GetOption is FwpmEngineGetOption0.
func (s *Session) GetOption(option fwpm.EngineOption) (uint32, error) {
	if s.ended() {
		return 0, s.fail(fwp.ErrSessionAborted)
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	switch {
	case option == fwpm.EngineCollectNetEvents && s.e.events.collect:
		return 1, nil
	case option == fwpm.EngineCollectNetEvents:
		return 0, nil
	case option == fwpm.EngineNetEventMatchAnyKeywords:
		return uint32(s.e.events.keywords), nil
	}
	return 0, s.fail(fwp.ErrInvalidParameter)
}

// RedirectEvent tells those who hear of net events of a redirect: what host/ale's
// OnRedirect hears, converted (AMB-45).
func (e *Engine) RedirectEvent(r fwpm.NetEventRedirect) {
	h := e.heard.Load()
	if h == nil {
		return
	}
	ev := fwpm.NetEvent{Type: fwpm.NetEventRedirectRefused, Time: h.now(), Layer: r.Layer, Filter: r.Filter, Callout: r.Callout,
		Rule: r.Rule, Why: r.Why, AppID: r.AppID, ProcessID: r.ProcessID, Original: r.Original, Target: r.Target, Err: r.Err}
	switch {
	case r.Err != nil:
		ev.Type = fwpm.NetEventRedirectFailed
	case r.Applied:
		ev.Type = fwpm.NetEventRedirectApplied
	}
	h.tell(ev)
}

func (h *listeners) tell(ev fwpm.NetEvent) {
	for _, s := range h.subs {
		s.tell(ev)
	}
}

// classified tells of a classification, if it is one to tell of.
func (h *listeners) classified(in *fwps.Incoming, d *fwps.Decision) {
	if !h.wants(in, d) {
		return
	}
	ev := fwpm.NetEvent{Type: fwpm.NetEventClassifyAllow, Time: h.now(), AuditID: audit(in.Layer, d), Layer: in.Layer,
		Protocol: in.Protocol, Inbound: in.Inbound, Loopback: in.Flags&fwp.FlagIsLoopback != 0, Local: in.Local, Remote: in.Remote,
		AppID: in.AppID, ProcessID: in.ProcessID, UserID: in.UserID, UserKnown: in.UserKnown, ReauthorizeReason: in.ReauthorizeReason}
	if d.Action != fwp.ActionPermit {
		ev.Type = fwpm.NetEventClassifyDrop
	}
	if s := d.Decider(); s != nil {
		ev.Filter, ev.Callout, ev.Rule, ev.Why = s.Filter, s.Callout, s.Rule, s.Why
	}
	h.tell(ev)
}

// wants leaves out what nobody asked for, absorbed blocks (EVT-04), and layers
// that Windows has no events for (AMB-45), unless a callout failed there: that
// ends the operation.
func (h *listeners) wants(in *fwps.Incoming, d *fwps.Decision) bool {
	if d.Action == fwp.ActionPermit {
		return h.keywords&fwpm.NetEventKeywordClassifyAllow != 0 && in.Layer.HasDiscard()
	}
	if d.Absorbed || !in.Layer.HasDiscard() && !d.Faulted {
		return false
	}
	if to := in.Local.Addr(); in.Inbound {
		switch {
		case to.IsMulticast():
			return h.keywords&fwpm.NetEventKeywordInboundMcast != 0
		case to == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return h.keywords&fwpm.NetEventKeywordInboundBcast != 0
		}
	}
	return true
}

// audits has the events of EVT-03 by layer: permitted, blocked. The V6 twin of a
// layer has those of the V4 one.
var audits = map[fwpm.LayerID][2]fwpm.AuditID{
	fwpm.LayerALEAuthListenV4:         {fwpm.AuditListenPermitted, fwpm.AuditListenBlocked},
	fwpm.LayerALEAuthConnectV4:        {fwpm.AuditConnectionPermitted, fwpm.AuditConnectionBlocked},
	fwpm.LayerALEAuthRecvAcceptV4:     {fwpm.AuditConnectionPermitted, fwpm.AuditConnectionBlocked},
	fwpm.LayerALEResourceAssignmentV4: {fwpm.AuditBindPermitted, fwpm.AuditBindBlocked},
}

func audit(l fwpm.LayerID, d *fwps.Decision) fwpm.AuditID {
	a, ok := audits[l.ForFamily(false)]
	switch {
	case d.Vetoed:
		return fwpm.AuditPacketVetoed
	case d.Action == fwp.ActionPermit:
		return a[0]
	case !ok:
		return fwpm.AuditPacketDropped
	}
	return a[1]
}
