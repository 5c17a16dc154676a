package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
)

// Who opens the page for the first time sees what the policy is for.
func TestExploreBeginsWithAConnectionOfTheCases(t *testing.T) {
	for policy, want := range map[string]*explore.Connection{
		"../../examples/forward/policy.yaml":   {Program: "/usr/bin/curl", User: "1000", PID: "1000", To: "127.0.0.1:8500", Protocol: "tcp"},
		"../../examples/household/policy.yaml": {Program: "/usr/bin/curl", User: "1001", PID: "1000", To: "198.51.100.7:443", Protocol: "tcp"},
		"../../examples/none/policy.yaml":      nil,
	} {
		require.Equal(t, want, firstOf(policy), policy)
	}

	policy := filepath.Join(t.TempDir(), "policy.yaml")
	cases := func(text string) *explore.Connection {
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(policy), "policy_test.yaml"), []byte("version: 1\ncases:\n"+text), 0o600))
		return firstOf(policy)
	}
	require.Equal(t, &explore.Connection{Program: "/bin/dig", User: "unknown", Groups: "7, 8", PID: "5", To: "192.0.2.7:53", From: "10.0.0.5:1", Protocol: "udp"}, cases(`
- {name: permitted, to: 192.0.2.7:1, expect: {action: permit}}
- {name: what stands beside is not on the page, with: [vpn-kill-switch], to: 192.0.2.7:2, expect: {action: block}}
- {name: blocked, program: /bin/dig, user: unknown, groups: [7, 8], pid: 5, to: 192.0.2.7:53, from: 10.0.0.5:1, protocol: udp, expect: {action: block}}
`))
	require.Nil(t, cases("- {name: wrong}\n"), "test says what is wrong with it")
}
