package policymodel_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
)

// Two redirectors beside each other, and what each is told at each proxy's connection.
const chains = `version: 1
with: [second-redirector]
cases:
  - name: SC-32 SC-33 the chain through both proxies ends
    program: /usr/bin/curl
    steps:
      - name: app
        to: 198.51.100.7:80
        expect: {action: redirect, destination: "proxy:second-redirector", provider: second-redirector, redirect_state: not-redirected}
      - name: second
        program: /opt/second
        records_of: app
        expect: {action: redirect, destination: "proxy:mine", callout: mine, redirect_state: redirected-by-other}
      - name: mine
        program: /opt/mine
        records_of: second
        expect: {action: permit, destination: 198.51.100.7:80, callout: second-redirector, redirect_state: previously-redirected-by-self, reason: RS-05}
  - name: SC-33 the last redirector is told that it was the last
    steps:
      - {name: app, to: "198.51.100.7:80", expect: {action: redirect}}
      - {name: second, records_of: app, expect: {action: redirect}}
      - {name: mine, records_of: second, expect: {action: permit, callout: mine, redirect_state: redirected-by-self, reason: RS-02}}
  - name: sound
    to: 198.51.100.7:80
    expect: {sound: true}
  - name: SC-31 a proxy that forgets its records gets its own connection again
    with: [forgetful-redirector]
    to: 198.51.100.7:443
    expect: {sound: true}
  - name: without the other
    with: []
    to: 198.51.100.7:80
    expect: {action: redirect, destination: "proxy:mine", provider: none}
`

func TestChainsOfRedirectors(t *testing.T) {
	suite, err := policytest.Parse("chains_test.yaml", []byte(chains))
	require.NoError(t, err)
	require.Equal(t, [][]string{{"second-redirector"}, {"forgetful-redirector"}, nil}, suite.Withs())
	for _, with := range suite.Withs() {
		w := world(t, mine, with...)
		require.NoError(t, suite.Bind(w.Policy, w.Proxies, with...))
		var cases []*policytest.Case
		for i := range suite.Cases {
			if slices.Equal(suite.Cases[i].With, with) {
				cases = append(cases, &suite.Cases[i])
			}
		}
		for _, r := range policytest.Run(t.Context(), w, suite, cases, 1, policytest.NewCoverage(w.Policy)) {
			require.NoError(t, r.Err, r.Case.Name)
			if strings.HasPrefix(r.Case.Name, "SC-31") {
				require.Equal(t, `a loop through proxy "forgetful-redirector": its own connection to 198.51.100.7:443 is redirected to it again`, r.Differences[0].Differences[0].Got)
				continue
			}
			require.Empty(t, r.Differences, r.Case.Name)
		}
	}
}

// What a model of a redirector does by its state and rights.
func TestRedirector(t *testing.T) {
	hop := func(h redirect.Handle) *redirect.Hop { return &redirect.Hop{Handle: h} }
	for _, c := range []struct {
		name, config string
		records      func(own redirect.Handle) redirect.Records
		want         string
	}{
		{"RS-02 not redirected: it redirects", `{"to": ["127.0.0.1:7"]}`, func(redirect.Handle) redirect.Records { return nil }, policytest.Redirect},
		{"RS-06 by another: it redirects too", `{"to": ["127.0.0.1:7"]}`, func(redirect.Handle) redirect.Records { return redirect.Records{hop(1 << 60)} }, policytest.Redirect},
		{"RS-02 by another that it trusts", `{"to": ["127.0.0.1:7"], "trusts_others": true}`, func(redirect.Handle) redirect.Records { return redirect.Records{hop(1 << 60)} }, policytest.Permit},
		{"RS-02 by itself: not again", `{"to": ["127.0.0.1:7"]}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own)} }, policytest.Permit},
		{"RS-05 by itself, then by another: not again", `{"to": ["127.0.0.1:7"]}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own), hop(1 << 60)} }, policytest.Permit},
		{"SC-34 one that ignores the state redirects again", `{"to": ["127.0.0.1:7"], "ignores_redirect_state": true}`, func(own redirect.Handle) redirect.Records { return redirect.Records{hop(own)} }, policytest.Redirect},
		{"CR-07 no proxy of the family", `{"to": ["[::1]:7"]}`, func(redirect.Handle) redirect.Records { return nil }, policytest.Permit},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world(t, "version: 1\ncallouts: [{id: r, model: redirector, config: "+c.config+"}]\n"+
				"filters: [{name: all, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: r}]\n")
			in := to("198.51.100.7:80")
			in.Records = c.records(w.Handles["r"])
			o, err := w.Decide(t.Context(), w.Record(), in)
			require.NoError(t, err)
			require.Equal(t, c.want, o.Action)
		})
	}
}

// At the layer of a dual-stack socket the proxy's IPv4 address is written as v4-mapped
// (ALE-LAY-16).
func TestRedirectorOfADualStackSocket(t *testing.T) {
	w := world(t, "version: 1", "second-redirector")
	o, err := w.Decide(t.Context(), w.Record(), to("[::ffff:198.51.100.7]:80"))
	require.NoError(t, err)
	require.Equal(t, policytest.Redirect, o.Action)
	require.True(t, o.Destination.Addr().Is4In6(), o.Destination)
}
