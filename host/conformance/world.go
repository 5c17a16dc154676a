package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A Wrap puts a classifier in the place of the engine: another arbiter, or the
// engine with a fault that the suite must find.
type Wrap func(e *host.Engine) fwps.Classifier

// A world is what one case happens in: an engine, an enforcer, a simulated
// network, and the trace.
type world struct {
	engine     *host.Engine
	classifier fwps.Classifier // the engine, or what the wrap made of it
	ale        *ale.Enforcer
	callouts   map[string]*scripted
	order      []string                   // of the callouts
	handles    map[string]redirect.Handle // of callouts, and those that were created
	unreg      map[string]func() error
	net        *network
	sockets    map[string]*sock
	vars       map[string][]byte // sealed records
	opts       map[string]string
	clock      time.Time
	sessions   map[string]*session
	enums      map[string]enumeration
	jobs       map[string]*job   // by socket
	held       map[string][]hold // what callouts pended, by callout
	completed  map[string]hold   // the newest, by callout

	mu      sync.Mutex
	running *job // nil: the script
	trace   strings.Builder
}

// newWorld makes the policy of a case live. change, if any, changes the options of
// the enforcer.
func newWorld(c *Case, wrap Wrap, change func(*ale.Options)) (*world, error) {
	w := &world{handles: map[string]redirect.Handle{}, unreg: map[string]func() error{}, net: newNetwork(), sockets: map[string]*sock{},
		vars: map[string][]byte{}, opts: map[string]string{}, clock: time.Unix(1_000_000, 0), jobs: map[string]*job{},
		held: map[string][]hold{}, completed: map[string]hold{}, sessions: map[string]*session{}, enums: map[string]enumeration{}}
	for _, l := range c.options.lines() {
		a := newArgs(l)
		o, err := a.options("block-at-redirect fault-continues prefix-matches-start metadata quiet acts endpoints booting reauthorize-on-handle-destroy", "pend-timeout flow-idle")
		if err != nil {
			return nil, err
		}
		for k, v := range o {
			w.opts[k] = v
		}
	}
	policy, err := readPolicy(c.policy)
	if err != nil {
		return nil, err
	}
	if w.callouts, w.order, err = readCallouts(c.callouts, w); err != nil {
		return nil, err
	}
	w.engine = host.New(host.Options{PrefixMatchesStart: w.opts["prefix-matches-start"] != "", FaultContinues: w.opts["fault-continues"] != "",
		PendTimeout: w.duration("pend-timeout"), ReauthorizeOnHandleDestroy: w.opts["reauthorize-on-handle-destroy"] != "",
		Booting: w.opts["booting"] != "", Now: func() time.Time { return w.clock }, After: w.after})
	w.classifier = w.engine
	if wrap != nil {
		w.classifier = wrap(w.engine)
	}
	opts := ale.Options{Classifier: traced{w, w.classifier}, Store: memstore.New(0), OnRedirect: w.redirected, IsLocal: w.net.local,
		BlockAtRedirect: w.opts["block-at-redirect"] != "", FlowIdle: w.duration("flow-idle"), Now: func() time.Time { return w.clock }}
	if change != nil {
		change(&opts)
	}
	w.ale = ale.New(opts)
	for _, name := range w.order {
		policy.Callouts = append(policy.Callouts, fwpm.Callout{ID: fwpm.CalloutID(name), Name: name, ApplicableLayer: w.callouts[name].layer, Provider: w.callouts[name].provider})
		if !w.callouts[name].unregistered {
			if err := w.register(name); err != nil {
				return nil, err
			}
		}
	}
	if err := w.engine.Update(func(p *fwpm.Policy) error { *p = *policy; return nil }); err != nil {
		return nil, fmt.Errorf("%s: policy: %w", c.File, err)
	}
	return w, nil
}

func (w *world) duration(option string) time.Duration {
	d, _ := time.ParseDuration(w.opts[option])
	return d
}

func (w *world) register(name string) error {
	h, unregister, err := w.engine.RegisterCallout(fwpm.CalloutID(name), w.callouts[name].callout())
	if err != nil {
		return err
	}
	w.handles[name], w.unreg[name] = h, unregister
	return nil
}

// printf adds a line to the trace.
func (w *world) printf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.trace, format+"\n", args...)
}

// traced prints every classification.
type traced struct {
	w *world
	fwps.Classifier
}

func (t traced) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	t.Classifier.Classify(ctx, in, d)
	if t.w.opts["quiet"] == "" || len(d.Steps) > 0 {
		t.w.decision(in, d)
	}
}

func short(l fwpm.LayerID) string { return strings.TrimPrefix(l.String(), "ALE_") }

func (w *world) decision(in *fwps.Incoming, d *fwps.Decision) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", short(in.Layer), in.Local)
	if in.Remote.IsValid() {
		fmt.Fprintf(&b, " -> %s", in.Remote)
	}
	if f := in.ConditionFlags(); f != 0 {
		fmt.Fprintf(&b, " [%s]", f)
	}
	if in.ReauthorizeReason != 0 {
		fmt.Fprintf(&b, " reason=%#x", uint32(in.ReauthorizeReason))
	}
	fmt.Fprintf(&b, ": %s%s", d.Action, softness(d))
	for i := range d.Steps {
		fmt.Fprintf(&b, "\n  %s", step(&d.Steps[i]))
	}
	for r := d.Connect; r != nil && r.Previous != nil; r = r.Previous {
		fmt.Fprintf(&b, "\n  version by filter %d: %s", r.ModifierFilterID, connectRequest(r))
	}
	for r := d.Bind; r != nil && r.Previous != nil; r = r.Previous {
		fmt.Fprintf(&b, "\n  version by filter %d: %s token=%d", r.ModifierFilterID, r.Local, r.PortReservationToken)
	}
	if w.opts["endpoints"] != "" {
		fmt.Fprintf(&b, "\n  endpoint %d of %d", in.EndpointID, in.ParentEndpointID)
	}
	if w.opts["metadata"] != "" {
		fmt.Fprintf(&b, "\n  metadata: %s", strings.Join(in.Metadata().Names(), " "))
		if in.Metadata()&fwpm.MetadataOriginalDestination != 0 {
			fmt.Fprintf(&b, "\n  original destination %s, target pid %d", in.OriginalDestination, in.LocalRedirectTargetPID)
		}
	}
	w.printf("%s", b.String())
}

func softness(d *fwps.Decision) string {
	s := " hard"
	switch {
	case d.Deciding < 0:
		s = " by default"
	case d.Rights&fwps.RightActionWrite != 0:
		s = " soft"
	}
	if d.Vetoed {
		s += " veto"
	}
	if d.Absorbed {
		s += " absorbed"
	}
	return s
}

func step(s *fwps.Step) string {
	out := "host"
	if s.Filter != 0 {
		out = fmt.Sprintf("filter %d in %s", s.Filter, s.Sublayer)
	}
	if s.Callout != "" {
		out += " asks " + string(s.Callout)
	}
	out += ": " + s.Action.String()
	if s.Hard {
		out += " hard"
	}
	if s.Redirected {
		out += " redirect"
	}
	if s.Rule != "ARB-01" {
		out += " (" + s.Rule + ")"
	}
	if s.Why != "" {
		out += ": " + s.Why
	}
	return out
}

func connectRequest(r *fwps.ConnectRequest) string {
	s := fmt.Sprintf("%s pid=%d", r.Remote, r.LocalRedirectTargetPID)
	if r.LocalRedirectHandle == 0 {
		s += " no handle"
	}
	if r.Local != r.Previous.Local {
		s += fmt.Sprintf(" local=%s", r.Local)
	}
	if r.PortReservationToken != 0 {
		s += fmt.Sprintf(" token=%d", r.PortReservationToken)
	}
	if len(r.LocalRedirectContext) > 0 {
		s += fmt.Sprintf(" context=%q", r.LocalRedirectContext)
	}
	return s
}

// act prints what happens on the network, in its place among the layers.
func (w *world) act(format string, args ...any) {
	if w.opts["acts"] != "" {
		w.printf("* "+format, args...)
	}
}

func (w *world) redirected(ev ale.RedirectEvent) {
	what := "applied"
	switch {
	case ev.Err != nil:
		what = fmt.Sprintf("failed: %v", ev.Err)
	case !ev.Applied:
		what = fmt.Sprintf("refused (%s): %s", ev.Rule, ev.Why)
	}
	w.printf("redirect %s -> %s %s", ev.Original, ev.Target, what)
	w.engine.RedirectEvent(fwpm.NetEventRedirect(ev))
}

// asked prints what a callout sees.
func (w *world) asked(name string, c *fwps.Call) {
	s := fmt.Sprintf("  %s sees %s", name, c.State)
	if c.Hop != nil {
		s += fmt.Sprintf(" context=%q", c.Hop.Context)
		if len(c.Hop.Record) > 0 {
			s += fmt.Sprintf(" record=%q", c.Hop.Record)
		}
	}
	if c.Rights&fwps.RightActionWrite == 0 {
		s += " without ACTION_WRITE"
	}
	if c.In.ConditionFlags()&fwp.FlagIsReauthorize != 0 {
		s += " IS_REAUTHORIZE"
	}
	if c.FlowContext != 0 {
		s += fmt.Sprintf(" flow-context=%d", c.FlowContext)
	}
	if c.Filter.Context != 0 {
		s += fmt.Sprintf(" filter-context=%d", c.Filter.Context)
	}
	for v := c.Connect; v != nil && v.Previous != nil; v = v.Previous {
		s += fmt.Sprintf(" version-by=%d", v.ModifierFilterID)
	}
	w.printf("%s", s)
}

func (w *world) format(name string, c *fwps.Call) {
	n, st := c.QuerySIOFormatRedirectRecords(nil)
	w.printf("  %s: format into nothing: %v, size known: %v", name, st, n > 0)
	buf := make([]byte, n)
	_, st = c.QuerySIOFormatRedirectRecords(buf)
	w.printf("  %s: format: %v", name, st)
	w.vars["formatted"] = buf
}

func (w *world) associate(callout string, f *fwps.Flow, l fwpm.LayerID, n uint64) error {
	return w.engine.FlowAssociateContext(f, l, fwpm.CalloutID(callout), n)
}

var localAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("2001:db8::5")}
