package callouttest

import (
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

const examples = "../../../examples/"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAPolicyFile(t *testing.T) {
	p := Open(t, examples+"forward/policy.yaml")
	p.Test(t, Case{Name: "there and back (RS-02)",
		Connection: Connection{To: "127.0.0.1:8399"},
		Want:       Want{Action: Redirect, Destination: "proxy:forward", Callout: "proxy-redirect", State: "not-redirected"},
		Then: []Step{{Connection: Connection{Program: "/usr/bin/calloutd", PID: 1}, WithRecords: true,
			Want: Want{Action: Permit, Destination: "127.0.0.1:8399", State: "redirected-by-self"}}},
	}, Case{Name: "sound", Connection: Connection{To: "198.51.100.7:80"}, Want: Want{Sound: true}})

	p = Open(t, examples+"conditions/policy.yaml")
	p.Test(t,
		Case{Name: "by program", Connection: Connection{Program: "/usr/bin/make", To: "192.0.2.7:25"},
			Want: Want{Action: Block, Filter: "no mail but by the mail program", Layer: "ALE_AUTH_CONNECT", Rule: "ARB-01", Destination: None, Callout: None}},
		Case{Name: "nobody", Connection: Connection{To: "192.0.2.7:99", Protocol: "udp", From: "127.0.0.1:1"}, Want: Want{Action: Permit}},
	)
}

// policy sends what a filter of port 80 sees to a module.
var policy = fwpm.Policy{
	Callouts: []fwpm.Callout{{ID: "x", Name: "x"}},
	Filters: []fwpm.Filter{{ID: 1, Name: "web", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "x",
		Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(80)}}}},
}

func TestFiltersInCodeWithAModule(t *testing.T) {
	module, err := os.ReadFile("../../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	x := Wasm(t, "x", module, []byte(`{"rules": [{"destinations": ["0.0.0.0/0"], "ports": ["80"], "proxy": "127.0.0.1:8080", "proxy_pid": 77}]}`))
	whomFor := sockaddr.Append(nil, netip.MustParseAddrPort("192.0.2.1:80"))
	whomFor = sockaddr.Append(whomFor, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	p := New(t, policy, map[fwpm.CalloutID]fwps.Callout{"x": x})
	p.Test(t,
		Case{Name: "redirected", Connection: Connection{To: "192.0.2.1:80"}, Want: Want{Action: Redirect, Destination: "127.0.0.1:8080", Filter: "web", Context: whomFor}},
		Case{Name: "not web", Connection: Connection{To: "192.0.2.1:81"}, Want: Want{Action: Permit, Filter: None}},
	)
}

// What a callout says of a connection that is there already when the policy changes.
func TestAConnectionIsAskedAboutAgain(t *testing.T) {
	policy := policy
	policy.Filters = []fwpm.Filter{{ID: 1, Name: "web", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutTerminating, Callout: "x"}}
	p := New(t, policy, map[fwpm.CalloutID]fwps.Callout{"x": fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Reason = fwp.ActionPermit, c.In.Flags.String()
		if c.In.Flags&fwp.FlagIsReauthorize != 0 && c.In.Remote.Port() == 80 {
			v.Action = fwp.ActionBlock
		}
		return nil
	})})
	again := Step{Reauthorizes: true, Want: Want{Action: Permit, Reason: "IS_REAUTHORIZE"}}
	ended := Step{Reauthorizes: true, Want: Want{Action: Block, Filter: "web"}}
	p.Test(t, Case{Name: "goes on", Connection: Connection{To: "192.0.2.1:443"}, Want: Want{Action: Permit}, Then: []Step{again, again}},
		Case{Name: "ends", Connection: Connection{To: "192.0.2.1:80"}, Want: Want{Action: Permit}, Then: []Step{ended, ended}})
	for want, s := range map[string]Step{
		"field Reauthorizes: the connection is that of the step before": {Reauthorizes: true, Connection: Connection{To: "192.0.2.1:1"}, Want: Want{Action: Permit}},
		"field Sound": {Reauthorizes: true, Want: Want{Sound: true}},
	} {
		require.ErrorContains(t, p.Check(t.Context(), Case{Connection: Connection{To: "192.0.2.1:443"}, Want: Want{Action: Permit}, Then: []Step{s}}), want)
	}
	require.ErrorContains(t, p.Check(t.Context(), Case{Connection: Connection{To: "192.0.2.1:443", Listen: true}, Want: Want{Action: Permit}, Then: []Step{again}}), "listens")
}

func TestAFailureShowsTheWay(t *testing.T) {
	p := New(t, policy, map[fwpm.CalloutID]fwps.Callout{"x": fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Reason = fwp.ActionBlock, "not today"
		return nil
	})})
	err := p.Check(t.Context(), Case{Connection: Connection{To: "192.0.2.1:80"}, Want: Want{Action: Permit, Filter: "web", Record: []byte("r")}, Then: []Step{
		{Connection: Connection{To: "192.0.2.1:443"}, Want: Want{Action: Block}}}})
	require.ErrorContains(t, err, "the connection: record: want r, got none\n  1 bytes wanted, 0 there, the first that differs is byte 0\nThen[0]: action: want block, got permit\nthe way through the layers:\n  ALE_BIND_REDIRECT_V4")
	require.ErrorContains(t, err, `filter 1 "web" in universal asks callout "x" (not-redirected): block: not today`)

	err = p.Check(t.Context(), Case{Connection: Connection{To: "192.0.2.1:81"}, Want: Want{Action: Permit}, Then: []Step{{WithRecords: true, Want: Want{Action: Permit}}}})
	require.ErrorContains(t, err, "the connection was not redirected, so there are no records")
}

func TestAMistakeInACaseIsNoPass(t *testing.T) {
	p := Open(t, examples+"quickstart/policy.yaml")
	ok := Connection{To: "192.0.2.1:80"}
	for want, c := range map[string]Case{
		"the connection: a Want needs an Action, or Sound":                          {Connection: ok},
		`Action "allow": there is none (did you mean "permit"?)`:                    {Connection: ok, Want: Want{Action: "allow"}},
		`To "": expected an address and a port`:                                     {Want: Want{Action: Permit}},
		`From "": expected an address`:                                              {Connection: Connection{To: "192.0.2.1:80", Inbound: true}, Want: Want{Action: Permit}},
		`To "proxy:none": the policy has no such proxy`:                             {Connection: Connection{To: "proxy:none"}, Want: Want{Action: Permit}},
		`Destination "proxy:x": the policy has no such proxy`:                       {Connection: ok, Want: Want{Action: Permit, Destination: "proxy:x"}},
		`field Protocol: "tpc": expected tcp, udp or a number`:                      {Connection: Connection{To: "192.0.2.1:80", Protocol: "tpc"}, Want: Want{Action: Permit}},
		"addresses From [::1]:1 and To 192.0.2.1:80 are of two address families":    {Connection: Connection{To: "192.0.2.1:80", From: "[::1]:1"}, Want: Want{Action: Permit}},
		"fields Inbound and Listen exclude each other":                              {Connection: Connection{To: "192.0.2.1:80", From: "192.0.2.1:80", Inbound: true, Listen: true}, Want: Want{Action: Permit}},
		`Filter "wbe": there is none, but documentation web to the proxy`:           {Connection: ok, Want: Want{Action: Permit, Filter: "wbe"}},
		"Then[0]: a Want needs an Action":                                           {Connection: ok, Want: Want{Action: Permit}, Then: []Step{{Connection: ok}}},
		`Callout "proxy-redirct": there is none (did you mean "proxy-redirect"?)`:   {Connection: ok, Want: Want{Action: Permit, Callout: "proxy-redirct"}},
		`Layer "ALE_AUTH_CONECT": there is none (did you mean "ALE_AUTH_CONNECT"?)`: {Connection: ok, Want: Want{Action: Permit, Layer: "ALE_AUTH_CONECT"}},
	} {
		require.ErrorContains(t, p.Check(t.Context(), c), want)
	}
}

func TestDecideHasEveryReason(t *testing.T) {
	p := Open(t, examples+"conditions/policy.yaml")
	out, trace, err := p.Decide(t.Context(), Connection{Program: "/usr/bin/make", To: "192.0.2.7:25"})
	require.NoError(t, err)
	require.Equal(t, Block, out.Action)
	require.Equal(t, "no mail but by the mail program", out.Reasons[0].Name)
	require.Contains(t, trace, "blocked at ALE_AUTH_CONNECT_V4")
	in, _, err := p.Decide(t.Context(), Connection{To: "192.0.2.1:80", From: "203.0.113.1:4711", Inbound: true, Root: true, PeerName: "x"})
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:80", in.Destination.String())
	_, _, err = p.Decide(t.Context(), Connection{})
	require.Error(t, err)
}
