package conformance

import (
	"context"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A mutation breaks one thing about the engine. The case of the rule that it breaks
// must fail.
type mutation struct {
	name, caught string
	wrap         Wrap               // another classifier, whose decisions are traced
	options      func(*ale.Options) // what the enforcer sees, which is not traced
}

// The suite is worth something if it notices.
func TestMutations(t *testing.T) {
	cases, err := Cases()
	require.NoError(t, err)
	byName := map[string]*Case{}
	for _, c := range cases {
		byName[c.Name()] = c
	}
	for _, m := range mutations {
		t.Run(m.name+" breaks "+m.caught, func(t *testing.T) {
			c := byName[m.caught]
			require.NotNil(t, c, "there is no case %s", m.caught)
			got, err := c.trace(m.wrap, m.options)
			require.True(t, err != nil || got != c.Want, "%s does not notice", m.caught)
		})
	}
}

var mutations = []mutation{
	// Arbitration.
	{"a veto is ignored", "ch-15", decided(func(_ *fwps.Incoming, d *fwps.Decision) {
		if d.Vetoed {
			d.Action, d.Vetoed = fwp.ActionPermit, false
		}
	}), nil},
	{"any block vetoes", "ale-lay-14-hard", decided(func(_ *fwps.Incoming, d *fwps.Decision) {
		for i := range d.Steps {
			if d.Steps[i].Action == fwp.ActionBlock {
				d.Action = fwp.ActionBlock
			}
		}
	}), nil},
	{"sublayers are asked from the lightest", "cr-11", policies(func(p *fwpm.Policy) {
		for i := range p.Sublayers {
			p.Sublayers[i].Weight = ^p.Sublayers[i].Weight
		}
	}), nil},
	{"filters are asked from the lightest", "sc-71", filters(func(f *fwpm.Filter) {
		w, _ := arbitrate.EffectiveWeight(f)
		f.Weight = fwpm.Weight{Type: fwp.Uint64, Value: ^w}
	}), nil},
	{"a hard permit is soft", "ale-lay-14-hard", filters(func(f *fwpm.Filter) { f.ClearActionRight = false }), nil},
	{"conditions are ignored", "ale-lay-15", filters(func(f *fwpm.Filter) { f.Conditions = nil }), nil},
	{"an inspection callout decides", "ch-04-inspection", filters(func(f *fwpm.Filter) {
		if f.Action == fwp.ActionCalloutInspection {
			f.Action = fwp.ActionCalloutUnknown
		}
	}), nil},
	{"a missing callout permits", "ale-fld-05", filters(func(f *fwpm.Filter) { f.PermitIfCalloutUnregistered = true }), nil},

	// What callouts see and say.
	{"the state is always not-redirected", "sc-30", calls(func(c *fwps.Call) { c.State = redirect.NotRedirected }), nil},
	{"another's redirect is one's own", "sc-36", calls(func(c *fwps.Call) {
		if c.State == redirect.RedirectedByOther {
			c.State = redirect.RedirectedBySelf
		}
	}), nil},
	{"an earlier redirect of one's own is another's", "sc-33", calls(func(c *fwps.Call) {
		if c.State == redirect.PreviouslyRedirectedBySelf {
			c.State, c.Hop = redirect.RedirectedByOther, nil
		}
	}), nil},
	{"the context is that of the oldest hop", "sc-34", calls(func(c *fwps.Call) {
		if c.Hop != nil {
			c.Hop = c.In.Records[0]
		}
	}), nil},
	{"a callout does not see IS_REAUTHORIZE", "ale-lay-13", calls(func(c *fwps.Call) {
		in := *c.In
		in.Flags &^= fwp.FlagIsReauthorize
		c.In = &in
	}), nil},
	{"a callout always sees ACTION_WRITE", "sc-74", calls(func(c *fwps.Call) { c.Rights |= fwps.RightActionWrite }), nil},
	{"the chain of versions is not seen", "sc-71", calls(func(c *fwps.Call) {
		if c.Connect != nil {
			r := *c.Connect
			r.Previous, r.ModifierFilterID = nil, 0
			c.Connect = &r
		}
	}), nil},
	{"a callout's decision is never hard", "ch-03", verdicts(func(v *fwps.Verdict) { v.ClearActionRight = false }), nil},
	{"absorb is lost", "ch-14", verdicts(func(v *fwps.Verdict) { v.Absorb = false }), nil},
	{"nobody is asked again after a change", "sc-73", verdicts(func(v *fwps.Verdict) { v.ReauthorizeIfModifiedByOthers = false }), nil},
	{"everybody is asked again after a change", "ale-lay-13-modified", verdicts(func(v *fwps.Verdict) { v.ReauthorizeIfModifiedByOthers = true }), nil},
	{"a callout that failed has said what it said before", "ch-04-fault", callouts(func(c fwps.Callout) fwps.Callout {
		return fwps.CalloutFunc(func(ctx context.Context, call *fwps.Call, v *fwps.Verdict) error {
			_ = c.Classify(ctx, call, v)
			return nil
		})
	}), nil},

	// What a classification is about.
	{"IS_CONNECTION_REDIRECTED is missing", "ale-fld-06", asked(without(fwp.FlagIsConnectionRedirected)), nil},
	{"IS_PROXY_CONNECTION is missing", "ale-fld-06-proxy", asked(without(fwp.FlagIsProxyConnection)), nil},
	{"IS_HONORING_POLICY_AUTHORIZE is missing", "ale-lay-15", asked(without(fwp.FlagIsHonoringPolicyAuthorize)), nil},
	{"IS_IMPLICIT_BIND is missing", "ale-lay-06-blocked", asked(without(fwp.FlagIsImplicitBind)), nil},
	{"IS_WILDCARD_BIND is missing", "ale-lay-06-wildcard", asked(without(fwp.FlagIsWildcardBind)), nil},
	{"IS_LOOPBACK is missing", "sc-60", asked(without(fwp.FlagIsLoopback)), nil},
	{"IS_REAUTHORIZE is missing", "ale-lay-12", asked(without(fwp.FlagIsReauthorize)), nil},
	{"the reason of a reauthorization is missing", "ale-lay-12", asked(func(in *fwps.Incoming) { in.ReauthorizeReason = 0 }), nil},
	{"the original program is forgotten", "ale-fld-05", asked(func(in *fwps.Incoming) { in.OriginalAppID = in.AppID }), nil},
	{"the original destination is the new one", "ale-meta-03", asked(func(in *fwps.Incoming) { in.OriginalDestination = in.Remote }), nil},
	{"the target process is forgotten", "cr-15", asked(func(in *fwps.Incoming) { in.LocalRedirectTargetPID = 0 }), nil},
	{"an accepted connection is its listener's endpoint", "ale-lay-07", asked(func(in *fwps.Incoming) {
		if in.ParentEndpointID != 0 {
			in.EndpointID = in.ParentEndpointID
		}
	}), nil},
	{"there is no flow", "ale-meta-04", asked(func(in *fwps.Incoming) { in.Flow = nil }), nil},
	{"records are not looked at", "ale-meta-05", asked(func(in *fwps.Incoming) { in.Records = nil }), nil},

	// Which layers are asked, and when.
	{"AUTH_CONNECT is asked once only", "ale-lay-14", nil, skips(func(in *fwps.Incoming) bool { return in.Flags&fwp.FlagIsHonoringPolicyAuthorize != 0 })},
	{"AUTH_CONNECT is asked twice for every redirect", "ale-lay-14-once", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		if in.Flags&fwp.FlagIsConnectionRedirected != 0 && in.Layer == fwpm.LayerALEAuthConnectV4 {
			c.Classify(context.Background(), in, d)
		}
		c.Classify(context.Background(), in, d)
	})},
	{"an implicit bind is not asked about", "ale-lay-06", nil, skips(func(in *fwps.Incoming) bool { return in.Flags&fwp.FlagIsImplicitBind != 0 })},
	{"ENDPOINT_CLOSURE is missing", "ale-lay-07", nil, skipsLayer(fwpm.LayerALEEndpointClosureV4)},
	{"RESOURCE_RELEASE is missing", "ale-lay-07-bind", nil, skipsLayer(fwpm.LayerALEResourceReleaseV4)},
	{"FLOW_ESTABLISHED is missing", "ale-lay-03", nil, skipsLayer(fwpm.LayerALEFlowEstablishedV4)},
	{"AUTH_LISTEN is missing", "ale-lay-03", nil, skipsLayer(fwpm.LayerALEAuthListenV4)},
	{"AUTH_RECV_ACCEPT is missing", "ale-lay-04", nil, skipsLayer(fwpm.LayerALEAuthRecvAcceptV4)},
	{"FLOW_ESTABLISHED comes before AUTH_CONNECT", "ale-lay-03", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		if in.Layer == fwpm.LayerALEAuthConnectV4 {
			early := *in
			early.Layer = fwpm.LayerALEFlowEstablishedV4
			c.Classify(context.Background(), &early, d)
		}
		c.Classify(context.Background(), in, d)
	})},
	{"a v4-mapped destination is asked about at CONNECT_REDIRECT_V4", "ale-lay-16", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		if in.Layer == fwpm.LayerALEConnectRedirectV6 && in.Remote.Addr().Is4In6() {
			in.Layer, in.Remote = fwpm.LayerALEConnectRedirectV4, plain(in.Remote)
		}
		c.Classify(context.Background(), in, d)
	})},
	{"a v4-mapped destination is asked about at AUTH_CONNECT_V6", "sc-84", nil, asV6()},
	{"every protocol can be redirected", "ale-lay-09", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		if in.Layer == fwpm.LayerALEAuthConnectV4 {
			early := *in
			early.Layer = fwpm.LayerALEConnectRedirectV4
			c.Classify(context.Background(), &early, d)
		}
		c.Classify(context.Background(), in, d)
	})},
	{"nothing is authorized again", "ale-lay-12", nil, generations(func(fwps.Classifier, fwpm.LayerID) uint64 { return 0 })},
	{"a change of any layer authorizes again", "ale-lay-12", nil, generations(func(c fwps.Classifier, _ fwpm.LayerID) (n uint64) {
		for _, l := range fwpm.Layers() {
			n += c.Generation(l)
		}
		return n
	})},
	{"a datagram flow never idles out", "ale-lay-11", nil, func(o *ale.Options) { o.FlowIdle = math.MaxInt64 }},
	{"a datagram flow idles out at once", "ale-lay-04", nil, func(o *ale.Options) { o.FlowIdle, o.Now = 1, ticking() }},
	{"the idle time cannot be set", "ale-lay-11-lifetime", nil, func(o *ale.Options) { o.FlowIdle = time.Minute }},

	// Redirects.
	{"a redirect without a process counts", "cr-01", nil, redirects(func(_ *fwps.Incoming, r *fwps.ConnectRequest) {
		r.LocalRedirectTargetPID = max(r.LocalRedirectTargetPID, 1)
	})},
	{"a redirect without a handle counts", "cr-03", nil, redirects(func(_ *fwps.Incoming, r *fwps.ConnectRequest) { r.LocalRedirectHandle = max(r.LocalRedirectHandle, 1) })},
	{"the family can be changed", "cr-07", nil, redirects(func(in *fwps.Incoming, r *fwps.ConnectRequest) {
		if in.Remote.Addr().Is4() && !r.Remote.Addr().Is4() {
			r.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.Remote.Port())
		}
	})},
	{"port zero counts", "cr-10", nil, redirects(func(_ *fwps.Incoming, r *fwps.ConnectRequest) {
		if r.Remote.Port() == 0 {
			r.Remote = netip.AddrPortFrom(r.Remote.Addr(), 1)
		}
	})},
	{"the first version counts", "sc-72", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		c.Classify(context.Background(), in, d)
		for d.Connect != nil && d.Connect.Previous != nil && d.Connect.Previous.Previous != nil {
			d.Connect = d.Connect.Previous
		}
	})},
	{"the context is lost", "sc-35", nil, redirects(func(_ *fwps.Incoming, r *fwps.ConnectRequest) { r.LocalRedirectContext = nil })},
	{"the record is lost", "sc-30", nil, redirects(func(_ *fwps.Incoming, r *fwps.ConnectRequest) { r.Record = nil })},
	{"the chosen source is ignored", "ch-07", nil, redirects(func(in *fwps.Incoming, r *fwps.ConnectRequest) { r.Local = in.Local })},
	{"a bind cannot be redirected", "br-01", nil, sees(func(c fwps.Classifier, in *fwps.Incoming, d *fwps.Decision) {
		c.Classify(context.Background(), in, d)
		if d.Bind != nil {
			d.Bind.Local = in.Local
		}
	})},
	{"a block at a redirect layer fails", "ch-16", nil, func(o *ale.Options) { o.BlockAtRedirect = true }},
	{"a block at a redirect layer never fails", "ch-16-switch", nil, func(o *ale.Options) { o.BlockAtRedirect = false }},
	{"only loopback is this host", "cr-01-nic", nil, func(o *ale.Options) { o.IsLocal = netip.Addr.IsLoopback }},
	{"every address is this host", "cr-14", nil, func(o *ale.Options) { o.IsLocal = func(netip.Addr) bool { return true } }},
	{"redirects are not told", "sc-61", nil, func(o *ale.Options) { o.OnRedirect = nil }},

	// Records.
	{"the record is kept after the connect", "sc-62", nil, stores(func(s redirect.Store) redirect.Store { return &lateStore{Store: s} })},
	{"the record is not kept", "sc-44", nil, stores(func(s redirect.Store) redirect.Store { return noPut{s} })},
	{"a record never goes", "sc-91", nil, stores(func(s redirect.Store) redirect.Store { return noRelease{s} })},
	{"references are not counted", "sc-42-held", nil, stores(func(s redirect.Store) redirect.Store { return noCount{s} })},
	{"a connection relies on the references of its socket", "amb-19-set", nil, stores(func(s redirect.Store) redirect.Store { return noRetain{s} })},
	{"a promised record is another one", "sc-48", nil, stores(func(s redirect.Store) redirect.Store { return noReplace{s} })},
}
