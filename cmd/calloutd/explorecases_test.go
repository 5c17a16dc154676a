package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
)

// Whoever opens the page chooses from what the policy's author thought of.
func TestExploreOffersTheCases(t *testing.T) {
	offered := map[string]explore.Case{}
	for _, c := range exploredCases("../../examples/forward/policy.yaml") {
		offered[c.Name] = c
	}
	require.Equal(t, explore.Case{Name: "local web goes to the proxy, and the proxy's own connection passes: application", Action: "redirect",
		Connection: explore.Connection{Program: "/usr/bin/curl", User: "1000", PID: "1000", To: "127.0.0.1:8500", Protocol: "tcp"}}, offered["local web goes to the proxy, and the proxy's own connection passes: application"])
	require.Empty(t, exploredCases("../../examples/none/policy.yaml"))

	policy := filepath.Join(t.TempDir(), "policy.yaml")
	cases := func(text string) []explore.Case {
		require.NoError(t, os.WriteFile(casesBeside(policy), []byte("version: 1\ncases:\n"+text), 0o600))
		return exploredCases(policy)
	}
	require.Equal(t, []explore.Case{
		{Name: "blocked", Action: "block", Connection: explore.Connection{Program: "/bin/dig", User: "unknown", Groups: "7, 8", PID: "5", To: "192.0.2.7:53", From: "10.0.0.5:1", Protocol: "udp"}},
		{Name: "comes in", Connection: explore.Connection{Program: "/usr/bin/curl", User: "1000", PID: "1000", To: "192.0.2.1:22", From: "203.0.113.9:40000", Protocol: "tcp", Inbound: true}},
		{Name: "two: first", Action: "redirect", Connection: explore.Connection{Program: "/usr/bin/curl", User: "1000", PID: "1000", To: "192.0.2.7:80", Protocol: "132"}},
	}, cases(`
- {name: what stands beside is not on the page, with: [vpn-kill-switch], to: 192.0.2.7:2, expect: {action: block}}
- {name: blocked, program: /bin/dig, user: unknown, groups: [7, 8], pid: 5, to: 192.0.2.7:53, from: 10.0.0.5:1, protocol: udp, expect: {action: block}}
- {name: comes in, inbound: true, to: 192.0.2.1:22, from: 203.0.113.9:40000, expect: {sound: true}}
- name: two
  steps:
  - {name: first, to: 192.0.2.7:80, protocol: 132, expect: {action: redirect}}
  - {name: with records, records_of: first, expect: {action: permit}}
- {name: no connection, listen: true, to: 192.0.2.1:22, expect: {action: permit}}
- {name: to a proxy that has no address yet, inbound: true, from: 192.0.2.1:22, to: "proxy:a", expect: {action: permit}}
- {name: a name of its own, peer_name: a.example, to: 192.0.2.7:2, expect: {action: permit}}
`))
	require.Empty(t, cases("- {name: wrong}\n"), "test says what is wrong with it")
}
