package host

import (
	"cmp"
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Options configure an Engine. The zero value works.
type Options struct {
	// OnDecision hears of every classification, on the classifying goroutine.
	// It must not keep or change what it is shown. Optional.
	OnDecision func(in *fwps.Incoming, d *fwps.Decision)

	// PrefixMatchesStart makes FWP_MATCH_PREFIX test the start of a value, as its
	// name says, and not the end, as its page says (AMB-34).
	PrefixMatchesStart bool
	// FaultContinues makes a callout that failed no decision: the next filter is
	// asked. The default is a hard block (AMB-42).
	FaultContinues bool
	// PendTimeout is how long a callout may hold a classification. Then it counts
	// as a failure. Zero is no limit but at ENDPOINT_CLOSURE, where a close waits that
	// nothing else would end: ten seconds. Less than zero is none there either (AMB-43).
	PendTimeout time.Duration
	// ReauthorizeOnHandleDestroy asks AUTH_CONNECT again about live flows when a
	// redirect handle goes (AMB-18).
	ReauthorizeOnHandleDestroy bool

	// CacheSize is how many decisions are kept, at least, for connections that are
	// equal in all that the decision could depend on. Optional: zero is
	// arbitrate.DefaultCacheSize, less than zero is none. What a callout answered is
	// kept only where it said fwps.Verdict.Cacheable.
	CacheSize int

	// RedirectHandles are the handles that callouts had in an engine whose place
	// this one takes: each gets its own again when it registers first, and knows
	// what it redirected there. No other handle is one of these. Optional.
	RedirectHandles map[fwpm.CalloutID]redirect.Handle
	// RedirectHandle is the handle of every callout by its name, where that is to be
	// the same after a restart, such as a redirect.SealKey's. It is not zero and no
	// other callout's. Optional: each registration has one that never was in this
	// process. With a seal that outlives the process it is needed: counted anew, a handle
	// may be one that another callout had, whose redirects are then taken for its own.
	RedirectHandle func(fwpm.CalloutID) redirect.Handle

	// Booting makes the engine begin before its host is ready: boot-time filters
	// are enforced and persistent ones are not, until BootComplete (BFE-OBJ-07).
	Booting bool

	// Now and After are the clock of transactions and events. Optional: time.Now
	// and time.After.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

// An Engine is the Base Filtering Engine: it holds the policy, the callouts that
// are registered and the sessions of those who change them. It is a
// fwps.Classifier and safe for concurrent use.
type Engine struct {
	opts   Options
	live   atomic.Pointer[live]
	stats  *counters
	heard  atomic.Pointer[listeners] // nil: nobody hears of net events
	outbox outbox
	cache  *arbitrate.Cache // nil: off

	lock       txnLock
	seq        uint64        // of the newest object; whoever holds lock
	lastFilter fwpm.FilterID // the highest there ever was; whoever holds lock

	mu       sync.Mutex // never held while foreign code runs
	callouts map[fwpm.CalloutID]*registered
	handles  map[redirect.Handle]string
	// Of Options.RedirectHandles, what nobody took yet.
	inherited map[fwpm.CalloutID]redirect.Handle
	sessions  map[string]*Session
	changes   []*changeSubscriber
	events    eventOptions
}

// New returns an engine without policy, which permits everything (ARB-09).
func New(opts Options) *Engine {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.After == nil {
		opts.After = time.After
	}
	e := &Engine{opts: opts, stats: newCounters(), callouts: map[fwpm.CalloutID]*registered{},
		handles: map[redirect.Handle]string{}, sessions: map[string]*Session{}, events: eventOptions{collect: true}}
	if opts.CacheSize >= 0 {
		e.cache = arbitrate.NewCache(cmp.Or(opts.CacheSize, arbitrate.DefaultCacheSize))
	}
	e.lock = txnLock{now: opts.Now, after: opts.After, changed: make(chan struct{})}
	e.inherited = maps.Clone(opts.RedirectHandles)
	for _, h := range e.inherited {
		countFrom(h)
	}
	if err := e.compile(live{objects: builtin(opts.Booting)}); err != nil {
		panic(err) // There is no filter that could be wrong.
	}
	return e
}

// Options are what New was given, with the defaults filled in.
func (e *Engine) Options() Options { return e.opts }

// Update changes the policy as one transaction: change gets a copy of all
// objects, those of sessions too, which goes live only if change returns nil and
// the whole policy is right. What change adds is static, what it leaves out is
// gone. Classifications see all of it or none, and never wait (BFE-TXN-04).
//
// Update waits up to 15 seconds for a transaction that is under way, and then is
// fwp.ErrTimeout.
func (e *Engine) Update(change func(*fwpm.Policy) error) error {
	defer e.outbox.deliver()
	t, err := e.begin(DefaultTxnWaitTimeout, nil)
	if err != nil {
		return err
	}
	defer e.end(t)
	p := t.base.policy()
	if err := change(p); err != nil {
		return err
	}
	last := e.lastFilter
	if err := t.replace(p); err != nil {
		t.abort()
		e.lastFilter = last
		return err
	}
	return t.commit()
}

// Policy returns a copy of the live policy.
func (e *Engine) Policy() *fwpm.Policy { return e.live.Load().objects.policy() }

// Enforced returns a copy of what is enforced of the live policy: not what waits
// for the host to be ready or is disabled (BFE-OBJ-07), and with what callouts
// left in their filters (CO-NOT-02).
func (e *Engine) Enforced() *fwpm.Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.enforced(e.live.Load().objects)
}

// Slot is where the callout of a name is found once it is registered.
func (e *Engine) Slot(id fwpm.CalloutID) *arbitrate.Slot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.slot(id)
}

// BootComplete says that the host is ready: from one classification to the next
// the persistent filters take the place of the boot-time ones (BFE-OBJ-07).
// Persistent objects of a provider whose service does not start by itself stay
// disabled until they are added anew (BFE-OBJ-06); a nil autoStart means that all
// services do. Without Options.Booting, and the second time, it does nothing.
func (e *Engine) BootComplete(autoStart func(serviceName string) bool) error {
	defer e.outbox.deliver()
	t, err := e.begin(DefaultTxnWaitTimeout, nil)
	if err != nil {
		return err
	}
	defer e.end(t)
	if !t.base.booting {
		return nil
	}
	t.write().boot(autoStart)
	return t.commit()
}

// Classify decides one layer and leaves the outcome in d, which the caller owns.
func (e *Engine) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	e.live.Load().program.Classify(ctx, in, d)
	e.Decided(in, d)
}

// Decided counts a decision and tells of it. Classify does it; a classifier that
// decides in the engine's place does it too.
func (e *Engine) Decided(in *fwps.Incoming, d *fwps.Decision) {
	e.stats.count(in.Layer, d)
	if h := e.heard.Load(); h != nil {
		h.classified(in, d)
	}
	if e.opts.OnDecision != nil {
		e.opts.OnDecision(in, d)
	}
}
