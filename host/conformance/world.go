package conformance

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
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

func (w *world) associate(callout string, f *fwps.Flow, l fwpm.LayerID, n uint64) error {
	return w.engine.FlowAssociateContext(f, l, fwpm.CalloutID(callout), n)
}

var localAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("2001:db8::5")}
