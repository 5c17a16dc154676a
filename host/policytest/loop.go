package policytest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/policyfile"
)

// rounds is how often a connection is followed through proxies: a chain of that
// many different ones is no loop yet.
const rounds = 4

// loops follows a connection through the policy's proxies. One that is redirected
// to a proxy it has been at is in a loop; one that is blocked ends there.
func (w *World) loops(ctx context.Context, in fwps.Incoming) (*Fault, error) {
	f := follower{World: w, enforcer: w.Record().Enforcer}
	defer f.close()
	fault, err := f.follow(journal.With(ctx, moment(0)), in)
	var b *ale.BlockedError
	if errors.As(err, &b) {
		return nil, nil
	}
	return fault, err
}

// A follower keeps what it opened: the records of a redirect last as long as its
// connection.
type follower struct {
	*World
	enforcer *ale.Enforcer
	open     []func()
}

func (f *follower) close() {
	for _, end := range slices.Backward(f.open) {
		end()
	}
}

func (f *follower) follow(ctx context.Context, in fwps.Incoming) (*Fault, error) {
	var seen []string
	for further := !in.Inbound; further && len(seen) < rounds; {
		proxy, flow, err := f.redirected(ctx, in)
		switch {
		case err != nil || proxy == "":
			return nil, err
		case slices.Contains(seen, proxy):
			return &Fault{FaultLoop, proxy, "its own connection to " + flow.Original.String() + " is redirected to it again"}, nil
		}
		seen = append(seen, proxy)
		if in, further, err = f.onward(ctx, proxy, flow, in.Protocol); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// redirected connects and returns the proxy that the connection comes to, empty if
// it comes to none that makes one of its own.
func (f *follower) redirected(ctx context.Context, in fwps.Incoming) (proxy string, flow *ale.Flow, err error) {
	sock, flow, err := Connect(ctx, f.enforcer, in)
	f.open = append(f.open, sock.Close)
	if err != nil {
		return "", nil, err
	}
	f.open = append(f.open, flow.Close)
	proxy, ok := strings.CutPrefix(f.place(flow.Remote), "proxy:")
	if !ok || !f.carries(proxy) || !flow.Redirected {
		return "", nil, nil
	}
	return proxy, flow, nil
}

// onward is the proxy's own connection; it has none for datagrams.
func (f *follower) onward(ctx context.Context, proxy string, flow *ale.Flow, protocol uint8) (own fwps.Incoming, connects bool, err error) {
	own = fwps.Incoming{Protocol: protocol, AppID: "calloutd", ProcessID: 1}
	accepted, err := Arrive(ctx, f.enforcer, flow, own)
	if err != nil {
		return own, false, err
	}
	f.open = append(f.open, accepted.Close)
	if protocol != fwps.ProtocolTCP {
		return own, false, nil
	}
	own.Remote = flow.Original
	if !f.forgets(proxy) {
		own.Records, err = Carry(f.enforcer, accepted.Records)
	}
	return own, true, err
}

// forgets reports whether a proxy sets no records on its own connections (RS-07).
func (w *World) forgets(id string) bool {
	return slices.ContainsFunc(w.Policy.Proxies, func(p policyfile.Proxy) bool { return p.ID == id && p.ForgetsRecords })
}

// carries reports whether a proxy of the policy makes connections of its own.
func (w *World) carries(id string) bool {
	return slices.ContainsFunc(w.Policy.Proxies, func(p policyfile.Proxy) bool { return p.ID == id && p.Kind != policyfile.ProxyInspect })
}
