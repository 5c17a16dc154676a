package policytrace_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
)

// described takes a connection through a policy with details and returns the flow.
func described(t *testing.T, path, to string) (events []policytrace.Event, r policytrace.Reader, e *ale.Enforcer, f *ale.Flow) {
	t.Helper()
	r.Details = new(policytrace.Details)
	o := policyrun.Options{OnDecision: func(_ *policyrun.Policy, in *fwps.Incoming, d *fwps.Decision) {
		ev, text := r.Decision(in, d)
		events = append(events, ev)
		for _, p := range ev.Passed {
			require.Contains(t, text, "\n    "+p.String())
		}
		for _, s := range ev.Steps {
			require.Contains(t, text, "\n        because "+strings.Join(s.Because, ", "))
		}
	}}
	p, err := policyrun.Describe(t.Context(), path, policyrun.Description{Options: o})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	r.Policy = p
	e = ale.New(ale.Options{Classifier: p.Engine, Store: memstore.New(0)})
	_, f, err = policytest.Connect(r.Details.Watch(t.Context()), e, fwps.Incoming{AppID: "/usr/bin/curl", ProcessID: 7, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort(to)})
	require.NoError(t, err)
	f.Detach()
	return events, r, e, f
}

func layer(t *testing.T, events []policytrace.Event, name string) policytrace.Event {
	t.Helper()
	for _, e := range events {
		if e.Layer == name {
			return e
		}
	}
	require.Fail(t, "no event of "+name)
	return policytrace.Event{}
}

func TestDetailsOfACallout(t *testing.T) {
	events, r, e, f := described(t, "../../plugins/sni-router/policy.yaml", "198.51.100.7:443")
	s := layer(t, events, "ALE_CONNECT_REDIRECT_V4").Steps[0]
	require.Equal(t, []string{"IP_PROTOCOL is tcp", "IP_REMOTE_PORT is 443"}, s.Because)
	require.Equal(t, redirect.NotRedirected.String(), s.State)
	require.Positive(t, s.Fuel)
	require.Less(t, s.Fuel, s.FuelLimit)
	require.Equal(t, uint16(0x9000), *s.SublayerWeight)
	require.Equal(t, "198.51.100.7:443", s.Context.Sockaddr[0])
	require.NotEmpty(t, s.Record.Hex)
	require.EqualValues(t, 1, s.TargetPID)

	// Whoever accepts it asks, and is told what the callout left.
	acc, err := e.Accept(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: f.Remote, Remote: f.Local})
	require.NoError(t, err)
	defer acc.Close()
	ev, text := r.Query(wsk.SIOQueryWFPConnectionRedirectContext, e, acc)
	require.Equal(t, "STATUS_SUCCESS", ev.Status)
	require.Equal(t, s.Context, ev.Data)
	require.Contains(t, text, "asks SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: STATUS_SUCCESS, SOCKADDR_STORAGE 198.51.100.7:443")
	ev, _ = r.Query(wsk.SIOQueryWFPConnectionRedirectRecords, e, acc)
	require.Equal(t, s.Record, ev.Records[0].Record)
	require.Equal(t, "198.51.100.7:443", ev.Records[0].Original)
	sealed, err := e.Seal(acc.Records)
	require.NoError(t, err)
	require.Equal(t, len(sealed), ev.Data.Size)
	ev, _ = r.Query(wsk.SIOQueryWFPConnectionRedirectRecords, e, f) // RED-Q-11: it was not redirected to this end.
	require.Equal(t, "STATUS_NOT_FOUND", ev.Status)
	require.Nil(t, ev.Data)
}

func TestDetailsOfFiltersThatWereNotAsked(t *testing.T) {
	events, r, _, _ := described(t, "../../examples/conditions/policy.yaml", "192.0.2.7:443")
	ev := layer(t, events, "ALE_AUTH_CONNECT_V4")
	require.NotEmpty(t, ev.Passed)
	for _, p := range ev.Passed {
		require.True(t, (len(p.Unless) > 0) != (p.By > 0), "%+v", p)
	}
	require.Zero(t, ev.PassedMore)

	// Without details nothing of it is told.
	r.Details = nil
	in := fwps.Incoming{Layer: r.Policy.File.Policy.Filters[0].Layer, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("192.0.2.7:25")}
	d := new(fwps.Decision)
	r.Policy.Engine.Classify(t.Context(), &in, d)
	plain, _ := r.Decision(&in, d)
	b, err := json.Marshal(plain)
	require.NoError(t, err)
	require.NotContains(t, string(b), `"passed"`)
	require.NotContains(t, string(b), `"because"`)
}
