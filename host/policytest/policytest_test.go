package policytest_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const policy = `version: 1
proxies:
  - {id: local, kind: forward, listen: 127.0.0.1:8080}
callouts:
  - {id: sends, wasm: none.wasm}
filters:
  - name: web to the proxy
    layer: ALE_CONNECT_REDIRECT
    action: callout
    callout: sends
    conditions:
      - {field: IP_REMOTE_PORT, value: [80, 443]}
  - name: no mail
    layer: ALE_AUTH_CONNECT
    action: block
    conditions:
      - {field: IP_REMOTE_PORT, value: 25}
      - {field: ALE_USER_ID, value: 1000}
  - name: nobody listens
    layer: ALE_AUTH_LISTEN_V4
    action: block
  - name: first in
    layer: ALE_AUTH_RECV_ACCEPT_V4
    action: permit
    weight: 15
`

// sends redirects what it did not redirect before to 127.0.0.1:8080. Of IPv6 it says why not.
type sends struct{ why string }

func (s sends) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	switch {
	case c.State == redirect.RedirectedBySelf:
		v.Action, v.Reason = fwp.ActionPermit, "its own"
	case c.In.Remote.Addr().Is6():
		v.Action, v.Reason = fwp.ActionPermit, s.why
	default:
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, netip.MustParseAddrPort("127.0.0.1:8080"), 1
		v.Record, v.Context = append(v.Record, 1, 2), append(v.Context, "hello"...)
	}
	return nil
}

// noTrace writes nothing down.
type noTrace struct{}

func (noTrace) Decision(*fwps.Incoming, *fwps.Decision) {}
func (noTrace) Redirect(ale.RedirectEvent)              {}
func (noTrace) Blocked(*ale.BlockedError)               {}
func (noTrace) String() string                          { return "" }

func world(t testing.TB) *policytest.World { return worldOf(t, sends{}) }

func worldOf(t testing.TB, s sends) *policytest.World { return worldWith(t, policy, "sends", s) }

func worldWith(t testing.TB, policy string, callout fwpm.CalloutID, c fwps.Callout) *policytest.World {
	t.Helper()
	f, err := policyfile.Parse("policy.yaml", []byte(policy))
	require.NoError(t, err)
	e := host.New(host.Options{})
	h, _, err := e.RegisterCallout(callout, c)
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error { *p = *f.Policy.Clone(); return nil }))
	return &policytest.World{Policy: f, Classifier: e, Proxies: map[string]netip.AddrPort{"local": netip.MustParseAddrPort("127.0.0.1:8080")},
		Handles: map[fwpm.CalloutID]redirect.Handle{callout: h}, NewTrace: func() policytest.Trace { return noTrace{} }}
}

func run(t *testing.T, src string) (*policytest.Suite, []policytest.Result, policytest.Summary) {
	t.Helper()
	return runIn(t, world(t), src)
}

func runIn(t *testing.T, w *policytest.World, src string) (*policytest.Suite, []policytest.Result, policytest.Summary) {
	t.Helper()
	s, err := policytest.Parse("c_test.yaml", []byte(src))
	require.NoError(t, err)
	require.NoError(t, s.Bind(w.Policy, w.Proxies))
	var cases []*policytest.Case
	for i := range s.Cases {
		cases = append(cases, &s.Cases[i])
	}
	c := policytest.NewCoverage(w.Policy)
	return s, policytest.Run(t.Context(), w, s, cases, 4, c), c.Summary()
}

// wrong lists the expectations that a case did not meet.
func wrong(r *policytest.Result) (keys []string) {
	for _, sd := range r.Differences {
		for _, d := range sd.Differences {
			keys = append(keys, d.Key)
		}
	}
	return keys
}

// Each expectation is met by what is so, and by nothing else: a check that cannot
// fail is none.
func TestEachExpectationCanFail(t *testing.T) {
	for _, c := range []struct{ name, to, right, wrong, key string }{
		{"a permit is no block", "192.0.2.1:9", "action: permit", "action: block", "action"},
		{"a redirect is no permit", "192.0.2.1:80", "action: redirect", "action: permit", "action"},
		{"a destination", "192.0.2.1:80", "action: redirect, destination: 'proxy:local'", "action: redirect, destination: '192.0.2.1:80'", "destination"},
		{"what is blocked goes nowhere", "192.0.2.1:25", "action: block, destination: none", "action: block, destination: '192.0.2.1:25'", "destination"},
		{"a context as text", "192.0.2.1:80", "action: redirect, context: hello", "action: redirect, context: hell", "context"},
		{"a context as hex", "192.0.2.1:80", "action: redirect, context: {hex: 68656c6c6f}", "action: redirect, context: {hex: 68656c6c}", "context"},
		{"a record", "192.0.2.1:80", "action: redirect, record: {hex: '01 02'}", "action: redirect, record: none", "record"},
		{"a filter by name", "192.0.2.1:25", "action: block, filter: no mail", "action: block, filter: web to the proxy", "filter"},
		{"a filter by number", "192.0.2.1:25", "action: block, filter: 3", "action: block, filter: 4", "filter"},
		{"no filter", "192.0.2.1:9", "action: permit, filter: none", "action: permit, filter: no mail", "filter"},
		{"a filter that decided is not none", "'[2001:db8::1]:80'", "action: permit, filter: web to the proxy", "action: permit, filter: none", "filter"},
		{"no filter at a layer", "'[2001:db8::1]:80'", "action: permit, layer: ALE_AUTH_CONNECT, filter: none", "action: permit, layer: ALE_CONNECT_REDIRECT, filter: none", "filter"},
		{"a callout", "192.0.2.1:80", "action: redirect, callout: sends", "action: redirect, callout: none", "callout"},
		{"a layer of either family", "192.0.2.1:25", "action: block, layer: ALE_AUTH_CONNECT", "action: block, layer: ALE_CONNECT_REDIRECT", "layer"},
		{"a layer of one family", "'[2001:db8::1]:25'", "action: block, layer: ALE_AUTH_CONNECT_V6", "action: block, layer: ALE_AUTH_CONNECT_V4", "layer"},
		{"a rule", "192.0.2.1:25", "action: block, rule: ARB-01", "action: block, rule: ARB-06", "rule"},
		{"all of a rule", "192.0.2.1:25", "action: block, rule: ARB-01", "action: block, rule: ARB-0", "rule"},
		{"a part of the reason", "192.0.2.1:25", "action: block, reason: blocks", "action: block, reason: permits", "reason"},
		{"no reason", "192.0.2.1:9", "action: permit, reason: none", "action: permit, reason: no", "reason"},
		{"a redirect state", "192.0.2.1:80", "action: redirect, redirect_state: not-redirected", "action: redirect, redirect_state: redirected-by-self", "redirect_state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := "version: 1\ncases:\n- {name: right, to: " + c.to + ", expect: {" + c.right + "}}\n- {name: wrong, to: " + c.to + ", expect: {" + c.wrong + "}}\n"
			_, rs, _ := run(t, src)
			require.True(t, rs[0].Passed(), rs[0].Explain())
			require.Contains(t, wrong(&rs[1]), c.key)
		})
	}
}

// What differs of bytes is shown as it was wanted, if it can be, and where.
func TestBytesThatDiffer(t *testing.T) {
	for _, c := range []struct{ want, shown, got, hint string }{
		{"context: hell", "hell", "hello", "4 bytes wanted, 5 there, the first that differs is byte 4"},
		{"context: hallo", "hallo", "hello", "5 bytes wanted, 5 there, the first that differs is byte 1"},
		{"context: none", "none", "hello", "0 bytes wanted, 5 there, the first that differs is byte 0"},
		{"context: {hex: 6865}", "6865", "68656c6c6f", "2 bytes wanted, 5 there, the first that differs is byte 2"},
		{"context: {sockaddr: [192.0.2.1:80]}", "[192.0.2.1:80]", "68656c6c6f", "128 bytes wanted, 5 there, the first that differs is byte 0"},
		{"record: {text: '0102'}", "30313032", "0102", "4 bytes wanted, 2 there, the first that differs is byte 0"},
		{"record: hello", "hello", "0102", "5 bytes wanted, 2 there, the first that differs is byte 0"},
	} {
		_, rs, _ := run(t, "version: 1\ncases:\n- {name: c, to: 192.0.2.1:80, expect: {action: redirect, "+c.want+"}}\n")
		d := rs[0].Differences[0].Differences[0]
		require.Equal(t, []string{c.shown, c.got, c.hint}, []string{d.Want, d.Got, d.Hint}, c.want)
		require.Equal(t, 3, d.Line)
	}
}

// A case that names what the policy does not have is a mistake, as is a number that none has.
func TestNamesAreThePolicys(t *testing.T) {
	w := world(t)
	for _, c := range []struct{ expect, want string }{
		{"filter: no mial", `3:63: the policy has no filter "no mial" (did you mean "no mail"?)`},
		{"filter: 99", `3:63: the policy has no filter "99" (web to the proxy, no mail, nobody listens, first in)`},
		{"callout: redirects", `3:64: the policy has no callout "redirects" (sends)`},
		{"provider: vpn", `3:65: the policy has no provider "vpn" (it has none)`},
		{"destination: 'proxy:locale'", `3:68: the policy has no proxy "locale" (did you mean "local"?)`},
	} {
		s, err := policytest.Parse("f", []byte("version: 1\ncases:\n- {name: c, to: 192.0.2.1:80, expect: {action: block, "+c.expect+"}}\n"))
		require.NoError(t, err)
		require.EqualError(t, s.Bind(w.Policy, w.Proxies), "f:"+c.want)
	}
}

func TestSequencesAndDirections(t *testing.T) {
	_, rs, _ := run(t, `version: 1
cases:
- name: the proxy's own connection has the records
  steps:
  - {name: app, to: 192.0.2.1:80, expect: {action: redirect}}
  - {name: proxy, program: proxy, records_of: app, expect: {action: permit, destination: 192.0.2.1:80, reason: its own, redirect_state: redirected-by-self}}
- name: so have its datagrams
  protocol: udp
  steps:
  - {name: app, to: 192.0.2.1:443, expect: {action: redirect}}
  - {name: proxy, records_of: app, expect: {action: permit, redirect_state: redirected-by-self}}
- name: the case says where the first one goes, and the proxy goes on to there, then elsewhere
  to: 192.0.2.1:80
  steps:
  - {name: app, expect: {action: redirect}}
  - {name: proxy, program: proxy, records_of: app, expect: {action: permit, destination: 192.0.2.1:80}}
  - {name: elsewhere, program: proxy, records_of: app, to: 192.0.2.1:9, expect: {action: permit, destination: 192.0.2.1:9}}
- {name: it listens, listen: true, to: 192.0.2.1:80, expect: {action: block, layer: ALE_AUTH_LISTEN_V4}}
- {name: it accepts, inbound: true, from: 203.0.113.1:4000, to: 192.0.2.1:80, expect: {action: permit, filter: first in, destination: 192.0.2.1:80}}
- {name: another user, user: unknown, to: 192.0.2.1:25, expect: {action: permit}}
`)
	for i := range rs {
		require.True(t, rs[i].Passed(), "%s: %s", rs[i].Case.Name, rs[i].Explain())
	}
}

// What all connections of a file have in common is what programs ask for, not where
// their proxy goes.
func TestDefaultsAreNotWhereRecordsLead(t *testing.T) {
	_, rs, _ := run(t, `version: 1
defaults: {to: 192.0.2.1:9}
cases:
- name: one
  steps:
  - {name: app, to: 192.0.2.1:80, expect: {action: redirect}}
  - {records_of: app, program: proxy, expect: {action: permit, destination: 192.0.2.1:80}}
`)
	require.True(t, rs[0].Passed(), rs[0].Explain())
}

func TestRecordsOfWhatWasNotRedirectedAreAnError(t *testing.T) {
	_, rs, _ := run(t, `version: 1
cases:
- name: none
  steps:
  - {name: app, to: 192.0.2.1:9, expect: {action: permit}}
  - {records_of: app, expect: {action: permit}}
`)
	require.ErrorContains(t, rs[0].Err, "was not redirected")
	require.False(t, rs[0].Passed())
}

// A callout hears of a change of the policy as of a connection that is there already
// (ALE-LAY-12, SC-93), and what it blocks then is over.
func TestAConnectionIsAskedAboutAgain(t *testing.T) {
	asked := fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		if v.Action = fwp.ActionPermit; c.In.Flags&fwp.FlagIsReauthorize != 0 && c.In.Remote.Port() == 81 {
			v.Action, v.Reason = fwp.ActionBlock, "no longer: "+c.In.ReauthorizeReason.String()
		}
		return nil
	})
	w := worldWith(t, `version: 1
callouts: [{id: c, wasm: c.wasm}]
filters: [{name: asked, layer: ALE_AUTH_CONNECT, action: callout, callout: c}, {name: both ways, layer: ALE_AUTH_RECV_ACCEPT, action: callout, callout: c}]
`, "c", asked)
	_, rs, s := runIn(t, w, `version: 1
cases:
- name: goes on, and ends
  steps:
  - {name: a, to: 192.0.2.1:80, expect: {action: permit}}
  - {name: b, to: 192.0.2.1:81, protocol: udp, expect: {action: permit}}
  - {name: c, inbound: true, from: "[2001:db8::1]:81", to: "[2001:db8::2]:80", expect: {action: permit}}
  - {reauthorizes: a, expect: {action: permit, destination: 192.0.2.1:80, filter: asked, layer: ALE_AUTH_CONNECT_V4}}
  - {name: b again, reauthorizes: b, expect: {action: block, filter: asked, callout: c, reason: "no longer: POLICY_CHANGE", layer: ALE_AUTH_CONNECT_V4}}
  - {reauthorizes: b again, expect: {action: block, reason: no longer}}
  - {reauthorizes: c, expect: {action: block, filter: both ways, layer: ALE_AUTH_RECV_ACCEPT_V6}}
- name: of what was blocked
  steps:
  - {name: a, to: 192.0.2.1:80, expect: {action: permit}}
  - {reauthorizes: a, expect: {action: block}}
`)
	require.True(t, rs[0].Passed(), rs[0].Explain())
	require.Equal(t, []string{"action"}, wrong(&rs[1]))
	require.Equal(t, 2, s.FiltersAsked)
}

func TestCoverageNamesWhatNoCaseReached(t *testing.T) {
	_, _, s := run(t, "version: 1\ncases:\n- {name: one, to: 192.0.2.1:80, expect: {action: redirect}}\n")
	require.Equal(t, [4]int{4, 1, 4, 2}, [4]int{s.Filters, s.FiltersAsked, s.Conditions, s.ConditionsHeld})
	require.InDelta(t, 37.5, s.Percent(), 0.01)
	var gaps []string
	for _, g := range s.Gaps {
		gaps = append(gaps, g.Name+" "+g.What)
	}
	require.Equal(t, []string{"web to the proxy never held: IP_REMOTE_PORT is 443", "no mail was never asked", "no mail never held: IP_REMOTE_PORT is 25",
		"nobody listens was never asked", "first in was never asked"}, gaps)
	require.Equal(t, "was never asked at ALE_CONNECT_REDIRECT_V6", s.OneFamily[0].What)
}

// Two filters on one line of a file are two, the families of one are one.
func TestCoverageTellsFiltersOnOneLineApart(t *testing.T) {
	f, err := policyfile.Parse("p.yaml", []byte("version: 1\nfilters: [{name: a, layer: ALE_AUTH_CONNECT, action: block}, {name: b, layer: ALE_AUTH_LISTEN, action: block}]\n"))
	require.NoError(t, err)
	s := policytest.NewCoverage(f).Summary()
	require.Equal(t, 2, s.Filters)
	require.Equal(t, []policytest.Gap{{Place: "p.yaml:2", Filter: 1, Name: "a", What: "was never asked"}, {Place: "p.yaml:2", Filter: 3, Name: "b", What: "was never asked"}}, s.Gaps)
}

const stale = `version: 1 # first
cases:
- name: one
  to: 192.0.2.1:80
  expect: # what comes
    action: permit # not so
    destination: "192.0.2.1:80"
    context: {hex: 00}   # bytes
    reason: 'it''s'
tables:
- name: t
  columns: [to, action, filter]
  rows:
  - [192.0.2.1:25, permit, none] # a row
`

func TestUpdateChangesExpectationsOnly(t *testing.T) {
	s, rs, _ := run(t, stale)
	got, err := policytest.Update(s, rs)
	require.NoError(t, err)
	want := strings.NewReplacer("action: permit", "action: redirect", `"192.0.2.1:80"`, "proxy:local", "hex: 00", "hex: 68656c6c6f", "'it''s'", "none",
		"permit, none", "block, no mail").Replace(stale)
	require.Equal(t, want, string(got))
	_, rs, _ = run(t, string(got))
	for i := range rs {
		require.True(t, rs[i].Passed(), rs[i].Explain())
	}
}

// Where a policy's proxy listens is the system's choice, and another one tomorrow.
func TestAProxyIsWantedAndToldByItsName(t *testing.T) {
	const c = "version: 1\ncases:\n- {name: one, to: 192.0.2.1:%s, expect: {action: %s, destination: %s}}\n"
	for _, d := range []struct{ port, action, want, got string }{
		{"80", "redirect", "127.0.0.1:8080", ""},
		{"80", "redirect", "proxy:local", ""},
		{"80", "redirect", "127.0.0.1:8081", "proxy:local"},
		{"9", "permit", "proxy:local", "192.0.2.1:9"},
		{"25", "block", "proxy:local", "none"},
	} {
		_, rs, _ := run(t, fmt.Sprintf(c, d.port, d.action, d.want))
		if d.got == "" {
			require.True(t, rs[0].Passed(), rs[0].Explain())
			continue
		}
		require.Equal(t, []string{d.want, d.got}, []string{rs[0].Differences[0].Differences[0].Want, rs[0].Differences[0].Differences[0].Got})
	}
}

func TestUpdateRefusesWhatItCannotRewrite(t *testing.T) {
	s, rs, _ := run(t, "version: 1\ncases:\n- {name: one, to: 192.0.2.1:80, expect: {action: redirect, context: {sockaddr: [192.0.2.1:80]}}}\n")
	_, err := policytest.Update(s, rs)
	require.ErrorContains(t, err, "c_test.yaml:3:80: context: it cannot be rewritten")
}

func TestJUnitIsXMLWhateverACaseIsCalled(t *testing.T) {
	_, rs, _ := run(t, "version: 1\ncases:\n- {name: '<&\">', to: 192.0.2.1:80, expect: {action: block}}\n- {name: ok, to: 192.0.2.1:9, expect: {action: permit}}\n")
	var b bytes.Buffer
	require.NoError(t, policytest.WriteJUnit(&b, rs))
	var back struct {
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	require.NoError(t, xml.Unmarshal(b.Bytes(), &back))
	require.Equal(t, 1, back.Failures)
	require.Equal(t, `<&">`, back.Suites[0].Cases[0].Name)
	require.NotNil(t, back.Suites[0].Cases[0].Failure)
	require.Nil(t, back.Suites[0].Cases[1].Failure)
}

// What is no case has a place, and is not run as another one.
func TestMistakesHaveAPlace(t *testing.T) {
	step := func(s string) string { return "{name: c, steps: [" + s + "]}" }
	const a, permit = "{name: a, to: 192.0.2.1:80, expect: {action: redirect}}, ", "to: 192.0.2.1:9, expect: {action: permit"
	for _, c := range []struct{ src, want string }{
		{"{name: c, inbound: true, " + permit + "}}", "3:3: from is missing: inbound needs the address of who connects"},
		{"{name: c, inbound: true, listen: true, from: 192.0.2.9:1, " + permit + "}}", "3:3: inbound and listen exclude each other"},
		{"{name: c, from: '[2001:db8::1]:1', " + permit + "}}", "3:3: from [2001:db8::1]:1 and to 192.0.2.1:9 are of two address families"},
		{"{name: c, groups: [7, staff], " + permit + "}}", `3:25: groups: expected the number of a group, found "staff"`},
		{"{name: c, groups: 7, " + permit + "}}", `3:21: groups: expected a list, found "7"`},
		{"{name: c, pid: [7], " + permit + "}}", "3:18: pid: expected the number of a process, found a list"},
		{"{name: c, user: nobody-is-called-so, " + permit + "}}", `3:19: user: expected a number, a user of this system or unknown, found "nobody-is-called-so"`},
		{"{name: c, protocol: 256, " + permit + "}}", `3:23: protocol: expected tcp, udp or a number up to 255, found "256"`},
		{"{name: c, interface: eth0, " + permit + "}}", `3:24: interface: expected the number (LUID) of an interface, found "eth0"`},
		{"{name: c, program: ~, " + permit + "}}", "3:22: program: expected text, found nothing"},
		{"{" + permit + "}}", "3:3: name is missing"},
		{"{name: c, " + permit + ", context: {text: [hello]}}}", "3:71: context: expected text, found a list"},
		{"{name: c, " + permit + ", context: }}", "3:64: context: expected text, found nothing"},
		{"{name: c, " + permit + ", record: {hex: }}}", "3:69: record: expected hexadecimal digits, two for a byte, found nothing"},
		{"{name: c, " + permit + ", record: {text: a, hex: 00}}}", "3:63: record: expected one of text, hex, sockaddr"},
		{"{name: c, steps: []}", "3:20: steps: the list is empty, so the case tests nothing"},
		{"{name: c, expect: {action: permit}, steps: [{to: 192.0.2.1:9, expect: {action: permit}}]}", "3:21: expect: a case with steps has it in each step"},
		{step(a + "{name: b, listen: true, records_of: a, " + permit + "}}"), "3:78: records_of: only a connection that the program makes has records set"},
		{step(a + "{name: [b], " + permit + "}}"), "3:85: name: expected text, found a list"},
		{step(a + "{name: b, records_of: c, " + permit + "}}"), `3:100: records_of: expected the name of an earlier step (a), found "c"`},
		{step("{to: 192.0.2.1:80, expect: {action: redirect}}, {name: b, records_of: [a], " + permit + "}}"), "3:91: records_of: expected the name of an earlier step, and none has one"},
	} {
		_, err := policytest.Parse("f", []byte("version: 1\ncases:\n- "+c.src+"\n"))
		require.EqualError(t, err, "f:"+c.want, c.src)
	}
}

// Whatever a file of cases holds, it is refused with a place or can be run.
func FuzzParse(f *testing.F) {
	f.Add([]byte(stale))
	f.Add([]byte("version: 1\ncases:\n- {name: a, steps: [{name: x, to: 'proxy:p', expect: {action: block, context: {sockaddr: [1.2.3.4:5]}}}]}\n"))
	f.Add([]byte("version: 1\ntables:\n- {name: t, columns: [to], rows: [[~]]}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := policytest.Parse("f", src)
		if err != nil {
			var errs policyfile.Errors
			require.ErrorAs(t, err, &errs)
			for _, p := range errs {
				require.Positive(t, p.Line)
				require.Positive(t, p.Column)
			}
			return
		}
		require.NotEmpty(t, s.Cases)
		for _, c := range s.Cases {
			require.NotEmpty(t, c.Steps)
		}
	})
}
