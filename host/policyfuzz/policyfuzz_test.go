package policyfuzz_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyfuzz"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const policy = `version: 1
proxies:
  - {id: onward, kind: forward, listen: 127.0.0.1:8080}
  - {id: look, kind: inspect, listen: 127.0.0.1:8081}
callouts:
  - {id: c, wasm: none.wasm}
filters:
  - {name: redirects, layer: ALE_CONNECT_REDIRECT, action: callout, callout: c}
  - {name: decides, layer: ALE_AUTH_CONNECT, action: callout, callout: c}
  - {name: accepts, layer: ALE_AUTH_RECV_ACCEPT, action: callout, callout: c}
  - {name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}, {field: ALE_USER_ID, value: 7}]}
`

type noTrace struct{}

func (noTrace) Decision(*fwps.Incoming, *fwps.Decision) {}
func (noTrace) Redirect(ale.RedirectEvent)              {}
func (noTrace) Blocked(*ale.BlockedError)               {}
func (noTrace) String() string                          { return "" }

// world is the policy with a callout, and more lines at its end.
func world(t *testing.T, c fwps.CalloutFunc, more string) *policytest.World {
	t.Helper()
	f, err := policyfile.Parse("policy.yaml", []byte(policy+more))
	require.NoError(t, err)
	e := host.New(host.Options{})
	h, _, err := e.RegisterCallout("c", c)
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error { *p = *f.Policy.Clone(); return nil }))
	return &policytest.World{Policy: f, Classifier: e, Handles: map[fwpm.CalloutID]redirect.Handle{"c": h}, NewTrace: func() policytest.Trace { return noTrace{} },
		Proxies: map[string]netip.AddrPort{"onward": netip.MustParseAddrPort("127.0.0.1:8080"), "look": netip.MustParseAddrPort("127.0.0.1:8081")}}
}

// to sends a connection to a local port.
func to(v *fwps.Verdict, port uint16) {
	v.Action, v.Redirect, v.TargetPID = fwp.ActionPermit, true, 1
	v.To = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

func port(c *fwps.Call) uint16 { return c.In.Remote.Port() }

func TestEachFaultIsFoundAndSmall(t *testing.T) {
	asked := 0
	for _, tc := range []struct {
		name    string
		callout fwps.CalloutFunc
		more    string
		want    string // kind, who, connection
	}{
		{"a callout that fails", func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error {
			if port(c) == 25 && c.In.UserID == 7 && c.In.Remote.Addr().Is4() {
				return errors.New("out of order")
			}
			return nil
		}, "", "fails c /usr/bin/curl 192.0.2.1:25 tcp 7"},
		{"a callout that fails where it accepts", func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error {
			if c.In.Inbound {
				return errors.New("out of order")
			}
			return nil
		}, "", "fails c /usr/bin/curl 127.0.0.1:443 tcp, user 1000, inbound from 192.0.2.1:443"},
		{"a callout that redirects where nothing can be redirected", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.In.Layer == fwpm.LayerALEAuthConnectV4 && port(c) == 25 {
				to(v, 8081)
			}
			return nil
		}, "", "nowhere c /usr/bin/curl 192.0.2.1:25 tcp"},
		{"a dual-stack socket that goes around a filter of IPv4", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.In.Layer == fwpm.LayerALEConnectRedirectV4 && c.State == redirect.NotRedirected {
				to(v, 8080)
			}
			return nil
		}, "invariants:\n  - {name: IPv4 goes through the proxy, protocol: tcp, to: [0.0.0.0/0], must: [redirect]}\n",
			"invariant IPv4 goes through the proxy /usr/bin/curl [::ffff:192.0.2.1]:443 tcp"},
		{"a range is found at its lowest", func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error {
			if port(c) > 40000 && !c.In.Inbound {
				return errors.New("out of order")
			}
			return nil
		}, "", "fails c /usr/bin/curl 192.0.2.1:40001 tcp"},
		{"a proxy's own connection that comes back", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.Connect != nil && port(c) != 8080 {
				to(v, 8080)
			}
			return nil
		}, "", "loop onward /usr/bin/curl 192.0.2.1:443 tcp"},
		{"another answer", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.In.Layer == fwpm.LayerALEAuthConnectV6 && port(c) == 25 {
				if asked++; asked%2 == 0 {
					v.Action = fwp.ActionBlock
				}
			}
			return nil
		}, "", "differs c /usr/bin/curl [2001:db8::1]:25 tcp"},
		{"an invariant", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error { return nil },
			"invariants:\n  - {name: no mail at all, ports: [25], protocol: tcp, must: [block]}\n", "invariant no mail at all /usr/bin/curl 192.0.2.1:25 tcp"},
		{"the wrong proxy", func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.Connect != nil && c.In.AppID == "/opt/a" {
				to(v, 8081)
			}
			return nil
		}, "  - {name: a, layer: ALE_AUTH_CONNECT, action: permit, conditions: [{field: ALE_APP_ID, value: /opt/a}]}\n" +
			"invariants:\n  - {name: through the proxy, program: /opt/, must: [block, redirect], proxies: [onward]}\n", "invariant through the proxy /opt/a 192.0.2.1:443 tcp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, err := policyfuzz.Search(t.Context(), policyfuzz.Options{World: world(t, tc.callout, tc.more), Seed: 1, Limit: 1000})
			require.NoError(t, err)
			require.NotEmpty(t, found)
			f := found[0]
			require.Equal(t, tc.want, string(f.Kind)+" "+f.Who+" "+policytest.Describe(&f.In))
		})
	}
}

func TestASoundPolicyHasNoFaults(t *testing.T) {
	w := world(t, func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		if c.Connect != nil && c.State == redirect.NotRedirected {
			to(v, 8080)
		}
		return nil
	}, "invariants:\n  - {name: mail of 7, user: 7, ports: [25], must: [block, redirect]}\n")
	tried := 0
	found, err := policyfuzz.Search(t.Context(), policyfuzz.Options{World: w, Seed: 3, Limit: 2000, Tried: func(n int) { tried = n }})
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, 2000, tried)
}

func TestConstantsOfTheCodeAreTried(t *testing.T) {
	w := world(t, func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error {
		if port(c) == 31337 && c.In.Remote.Addr() == netip.MustParseAddr("203.0.113.77") {
			return errors.New("out of order")
		}
		return nil
	}, "")
	o := policyfuzz.Options{World: w, Seed: 1, Limit: 4000}
	found, err := policyfuzz.Search(t.Context(), o)
	require.NoError(t, err)
	require.Empty(t, found)
	o.Numbers = []uint32{31337, 0xcb00714d}
	found, err = policyfuzz.Search(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "203.0.113.77:31337", found[0].In.Remote.String())
}

// What a name or an interface makes of a connection is found too, and its case has it.
func TestNamesAndInterfacesAreTried(t *testing.T) {
	for field, value := range map[fwpm.ConditionID]string{fwpm.ConditionPeerName: "b.example", fwpm.ConditionIPLocalInterface: "7"} {
		w := world(t, func(context.Context, *fwps.Call, *fwps.Verdict) error { return nil },
			"  - {name: f, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: "+field.String()+", value: "+value+"}]}\n"+
				"invariants:\n  - {name: the web is open, ports: [443], must: [permit]}\n")
		found, err := policyfuzz.Search(t.Context(), policyfuzz.Options{World: w, Seed: 1, Limit: 2000})
		require.NoError(t, err)
		require.Len(t, found, 1, "%v", field)
		require.Len(t, found[0].In.Other, 1)
		require.Contains(t, found[0].In.Other, field)
		s, err := policytest.Parse("p_fuzz_test.yaml", []byte(policyfuzz.Begin("policy.yaml")+found[0].Case()))
		require.NoError(t, err)
		require.Equal(t, found[0].In.Other, s.Cases[0].Steps[0].Incoming.Other)
	}
}

func TestASearchCanBeEnded(t *testing.T) {
	w := world(t, func(context.Context, *fwps.Call, *fwps.Verdict) error { return nil }, "")
	ctx, stop := context.WithCancel(t.Context())
	_, err := policyfuzz.Search(ctx, policyfuzz.Options{World: w, Limit: 1 << 30, Tried: func(n int) {
		if n == 100 {
			stop()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
}

// A finding as a case is the connection that was found.
func TestAFindingIsACaseThatFails(t *testing.T) {
	w := world(t, func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error { return errors.New("always") }, "")
	for _, line := range []string{"/usr/bin/curl 192.0.2.1:25", `"/opt/a \"b\" #" [2001:db8::1]:1 udp 7`, "/a 192.0.2.1:9 132 0"} {
		in, _, err := policytest.ParseConnection("f", 1, line)
		require.NoError(t, err)
		fault, err := w.Sound(t.Context(), in)
		require.NoError(t, err)
		require.NotNil(t, fault)
		f := policyfuzz.Finding{Fault: *fault, In: in}
		s, err := policytest.Parse("p_fuzz_test.yaml", []byte(policyfuzz.Begin("policy.yaml")+f.Case()))
		require.NoError(t, err)
		require.Equal(t, in, s.Cases[0].Steps[0].Incoming)
		require.NoError(t, s.Bind(w.Policy, w.Proxies))
		rs := policytest.Run(t.Context(), w, s, []*policytest.Case{&s.Cases[0]}, 1, policytest.NewCoverage(w.Policy))
		require.Equal(t, fault.String(), rs[0].Differences[0].Differences[0].Got)
	}
}

// A callout's words stay in the comment: a line of their own would be a key.
func TestWhatACalloutSaysIsNoKey(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\x00"} {
		f := policyfuzz.Finding{Fault: policytest.Fault{Kind: policytest.FaultFails, Who: "c", Why: "no" + end + "    user: 0"},
			In: fwps.Incoming{AppID: "/usr/bin/curl", Protocol: fwps.ProtocolTCP, UserID: 7, UserKnown: true, Remote: netip.MustParseAddrPort("192.0.2.1:25")}}
		s, err := policytest.Parse("p_fuzz_test.yaml", []byte(policyfuzz.Begin("policy.yaml")+f.Case()))
		require.NoError(t, err, "%q", end)
		require.EqualValues(t, 7, s.Cases[0].Steps[0].Incoming.UserID)
	}
}
