package policytest_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

// filters is a world of filters alone.
func filters(t testing.TB, src string) (*policytest.World, *host.Engine) {
	t.Helper()
	f, err := policyfile.Parse("policy.yaml", []byte("version: 1\nfilters:\n"+src))
	require.NoError(t, err)
	e := host.New(host.Options{})
	require.NoError(t, e.Update(func(p *fwpm.Policy) error { *p = *f.Policy.Clone(); return nil }))
	return &policytest.World{Policy: f, Classifier: e, NewTrace: func() policytest.Trace { return noTrace{} }}, e
}

func connection(t *testing.T, line string) fwps.Incoming {
	t.Helper()
	in, ok, err := policytest.ParseConnection("f", 1, line)
	require.NoError(t, err)
	require.True(t, ok)
	return in
}

const layered = `- {name: no mail, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}
- {name: no mail again, layer: ALE_AUTH_CONNECT_V4, action: block, weight: {exact: 1}, conditions: [{field: IP_REMOTE_PORT, value: 20-30}]}
- {name: exim, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: 15, conditions: [{field: ALE_APP_ID, value: /exim}, {field: IP_PROTOCOL, value: udp}]}
- {name: too light, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: {exact: 0}, conditions: [{field: ALE_APP_ID, value: /light}]}
`

func TestWhyTriesWhatWouldChangeIt(t *testing.T) {
	w, e := filters(t, layered)
	x, err := w.Explain(t.Context(), connection(t, "/curl 192.0.2.1:25"), e.Update)
	require.NoError(t, err)
	require.Equal(t, policytest.Block, x.Outcome)
	require.Equal(t, []string{"IP_REMOTE_PORT is 25"}, x.By[0].Because)
	require.Equal(t, `without filter 1 "no mail" and 2 "no mail again": permit`, x.Without)
	require.Len(t, x.Others, 1, "a filter that is lighter than the block would change nothing")
	require.Equal(t, "exim", x.Others[0].Name)
	require.Equal(t, []string{"ALE_APP_ID is /exim (it is /curl)", "IP_PROTOCOL is udp (it is tcp)"}, x.Others[0].If)
	require.Len(t, e.Policy().Filters, 4, "the policy is put back")
	again, err := w.Explain(t.Context(), connection(t, "/curl 192.0.2.1:25"), e.Update)
	require.NoError(t, err)
	require.Equal(t, x, again)
}

func TestDiffFindsEveryBoundaryThatMoved(t *testing.T) {
	old, _ := filters(t, "- {name: a, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 8000-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}]}\n")
	for _, c := range []struct{ name, condition, want string }{
		{"the lower port", "[{field: IP_REMOTE_PORT, value: 8001-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}]", "block->permit :8000"},
		{"the upper port", "[{field: IP_REMOTE_PORT, value: 8000-9000}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}]", "permit->block :9000"},
		{"the network", "[{field: IP_REMOTE_PORT, value: 8000-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/9}]", "block->permit 10.128.0.0:8000"},
		{"a protocol", "[{field: IP_REMOTE_PORT, value: 8000-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}, {field: IP_PROTOCOL, value: 132}]", "block->permit tcp"},
		{"a user", "[{field: IP_REMOTE_PORT, value: 8000-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}, {field: ALE_USER_ID, value: 7}]", "block->permit tcp"},
		{"a program", "[{field: IP_REMOTE_PORT, value: 8000-8999}, {field: IP_REMOTE_ADDRESS, value: 10.0.0.0/8}, {field: ALE_APP_ID, match: not_prefix, value: /wget}]", "block->permit /opt/wget"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, _ := filters(t, "- {name: a, layer: ALE_AUTH_CONNECT, action: block, conditions: "+c.condition+"}\n")
			compare := policytest.Compare(old, next)
			kind, part, _ := strings.Cut(c.want, " ")
			found := false
			_, err := compare.Over(t.Context(), policytest.Boundaries(old, next).Questions(100_000), func(change *policytest.Change) error {
				found = found || change.Kind() == kind && strings.Contains(policytest.Describe(&change.In), part)
				return nil
			})
			require.NoError(t, err)
			require.True(t, found)
		})
	}
}

func TestALimitedSearchIsSpreadAndRepeatsNothing(t *testing.T) {
	w, _ := filters(t, layered)
	s := policytest.Boundaries(w)
	var seen []string
	for in := range s.Some(50) {
		line := policytest.Describe(&in)
		require.False(t, slices.Contains(seen, line), line)
		seen = append(seen, line)
	}
	require.Len(t, seen, 50)
	require.Greater(t, s.Size(), 50)
	for _, part := range []string{"udp", "tcp", "/exim", "/light", "2001:db8::"} {
		require.True(t, slices.ContainsFunc(seen, func(l string) bool { return strings.Contains(l, part) }), part)
	}
}

// A line is refused at a column of it, or is a connection that is written as it
// is read.
func FuzzParseConnection(f *testing.F) {
	for _, s := range []string{"/curl 192.0.2.1:25", `"/a b" [::1]:1 udp 7 # why`, "a", "a b", "/c 1.2.3.4:5 6 x", `"\q" 1.2.3.4:5`, `"" [::]:0`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, ok, err := policytest.ParseConnection("f", 1, s)
		if err != nil {
			var p policyfile.Problem
			require.ErrorAs(t, err, &p)
			require.Positive(t, p.Column)
			require.LessOrEqual(t, p.Column, len([]rune(s)))
			return
		}
		if !ok {
			return
		}
		back, ok, err := policytest.ParseConnection("f", 1, policytest.Describe(&in))
		require.NoError(t, err, policytest.Describe(&in))
		require.True(t, ok)
		require.Equal(t, in, back)
	})
}

// What a connection has besides follows: one that differs in it alone reads differently.
func TestALineSaysWhatElseThereIs(t *testing.T) {
	in, _, err := policytest.ParseConnection("f", 1, "/a 192.0.2.1:443")
	require.NoError(t, err)
	in.Other = policytest.OnInterface(policytest.Called(nil, "app.example"), 7)
	require.Equal(t, "/a 192.0.2.1:443 tcp, called app.example, interface 7", policytest.Describe(&in))
	in.Inbound, in.UserKnown, in.Other, in.Local = true, false, nil, netip.MustParseAddrPort("127.0.0.1:80")
	require.Equal(t, "/a 127.0.0.1:80 tcp, an unknown user, inbound from 192.0.2.1:443", policytest.Describe(&in))
}
