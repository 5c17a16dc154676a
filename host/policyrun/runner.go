package policyrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// ErrClosed says that a Runner takes no policy any more.
var ErrClosed = errors.New("the runner is closed")

// A Runner has what policies have in common that take each other's place: the
// layers, with the records of connections that are under way, and the proxies that
// listen. Until the first policy is in force nothing is connected. It is safe for
// concurrent use.
type Runner struct {
	opts  Options
	ale   *ale.Enforcer
	reign atomic.Pointer[reign]
	names dnsnames.Names  // what addresses are called
	ctx   context.Context // of the proxies
	end   context.CancelFunc
	wg    sync.WaitGroup // proxies that end
	old   retired

	changing sync.Mutex                         // one change of policies at a time
	had      map[fwpm.CalloutID]redirect.Handle // of all callouts there were
	listen   map[policyfile.Proxy]localProxy
	closed   atomic.Bool

	joining sync.Mutex  // apart: a function of the Options may ask for the Dialer
	client  *wsk.Client // of the proxies and the dialer; nil until there is one
	leave   func()
}

// New returns a Runner without a policy. The caller closes it.
func New(o Options) *Runner {
	o = o.filled()
	if o.Store == nil {
		o.Store = memstore.New(0)
	}
	if o.Process.ID == 0 {
		o.Process.ID = uint32(os.Getpid())
	}
	if o.Process.AppID == "" {
		o.Process.AppID, _ = os.Executable() // Empty is "unknown program".
	}
	r := &Runner{opts: o, had: map[fwpm.CalloutID]redirect.Handle{}, listen: map[policyfile.Proxy]localProxy{}}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.names.Logf = o.Logf
	r.reign.Store(&reign{classifier: interregnum{o.Process.ID}})
	var sealer *redirect.Sealer
	if o.SealKey != nil {
		sealer = o.SealKey.Sealer()
	}
	r.ale = ale.New(ale.Options{Classifier: throne{r}, Store: o.Store, Sealer: sealer, OnRedirect: o.OnRedirect, PeerNames: r.names.Of})
	return r
}

// Load puts the policy of a file into force, in the place of the one before: each
// classification is decided by one of the two, and every flow is authorized again
// (ALE-LAY-12). Redirects of the one before are its callouts' own to callouts of
// the same ID. When anything is wrong with the policy the error has every mistake
// with its place, and everything stays as it is, as when ctx is done before.
func (r *Runner) Load(ctx context.Context, path string) error {
	file, err := policyfile.LoadEach(path, r.opts.OnInput)
	if err != nil {
		return err
	}
	return r.Use(ctx, path, file)
}

// Use is Load for a policy that was read already. The files that it names are
// relative to the folder of path. A zero File is an error: nothing was read into it.
func (r *Runner) Use(ctx context.Context, path string, file *policyfile.File) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.closed.Load() {
		return ErrClosed
	}
	if err := given(file); err != nil {
		return err
	}
	p, err := r.open(ctx, path, file)
	if err != nil {
		for _, px := range r.unused() {
			px.Close()
		}
		return err
	}
	old := r.Policy()
	r.names.Trust(r.trusts(p)) // Before it reigns, or it would decide by what it does not believe.
	r.enter(p)
	maps.Copy(r.had, p.Handles)
	if old != nil {
		r.old.add(old)
	}
	for _, px := range r.unused() {
		r.wg.Go(func() { r.shutdown(r.ctx, px) })
	}
	return nil
}

// open makes a policy ready: proxies first, since the callouts' configuration names
// their addresses.
func (r *Runner) open(ctx context.Context, path string, file *policyfile.File) (*Policy, error) {
	if err := errors.Join(modelled(file), context.Cause(ctx)); err != nil {
		return nil, err
	}
	p := newPolicy(path, file, r.opts, &r.names, r.had)
	err := r.startProxies(p)
	err = errors.Join(err, p.fill(ctx))
	if err == nil {
		err = context.Cause(ctx) // Nobody waits for it any more.
	}
	if err == nil {
		err = r.opts.Before(p)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Policy is the one in force, nil before the first. It is the Runner's.
func (r *Runner) Policy() *Policy { return r.reign.Load().policy }

// Enforcer takes connections through the layers, whatever policy is in force.
func (r *Runner) Enforcer() *ale.Enforcer { return r.ale }

// Names are figures about what addresses are called, as proxies of kind dns have learned.
func (r *Runner) Names() dnsnames.Figures { return r.names.Figures() }

// Handoff is a handoff.Finder: the proxy of others that the policy in force has at an
// address.
func (r *Runner) Handoff(a netip.AddrPort) *handoff.Proxy {
	if p := r.Policy(); p != nil {
		return p.handoff[a]
	}
	return nil
}

// Dialer returns what connects as the policy in force says, for this process. Its
// Client makes listeners, too (wsknet.Listen).
func (r *Runner) Dialer() (*wsknet.Dialer, error) {
	client, err := r.register()
	if err != nil {
		return nil, err
	}
	return &wsknet.Dialer{Client: client}, nil
}

// register makes the proxies a client of Winsock Kernel, once.
func (r *Runner) register() (*wsk.Client, error) {
	r.joining.Lock()
	defer r.joining.Unlock()
	if r.closed.Load() {
		return nil, ErrClosed
	}
	if r.client != nil {
		return r.client, nil
	}
	client, leave, err := wsknet.NewClient(wsk.Options{ALE: r.ale, Process: r.opts.Process})
	if err != nil {
		return nil, fmt.Errorf("winsock kernel: %w", err)
	}
	r.client, r.leave = client, leave
	return client, nil
}

// Drain lets the proxies take no connection any more and waits until those that
// there are have ended, or ctx has. No policy comes after it.
func (r *Runner) Drain(ctx context.Context) {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.closed.Store(true)
	var wg sync.WaitGroup
	for _, px := range r.listen {
		wg.Go(func() { px.Shutdown(ctx) })
	}
	wg.Wait()
}

// Close ends the proxies, the policies and what they stand on. It waits for the
// connections and listeners of the Dialer: whoever has them closes them before, those that
// an http.Transport keeps idle with CloseIdleConnections, and the peers of connections have
// half a minute to close too (wsknet.Conn). Who waits for the Dialer, or asks it later, gets
// net.ErrClosed, and who has the Enforcer ale.ErrClosed. A Store of the Options stays open:
// whoever made it closes it, after the Runner, which leaves no record there but those of
// flows of the Enforcer that nobody has closed.
func (r *Runner) Close() {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.closed.Store(true)
	r.end()
	r.wg.Wait()
	r.old.close()
	if p := r.Policy(); p != nil {
		p.Close()
	}
	for p, px := range r.listen {
		px.Close()
		delete(r.listen, p)
	}
	r.joining.Lock()
	leave := r.leave
	r.leave = nil
	r.joining.Unlock()
	if leave != nil {
		leave() // Decisions that end meanwhile may ask for the Dialer.
	}
	r.ale.Close() // Last: until they have ended, connections are accepted.
}
