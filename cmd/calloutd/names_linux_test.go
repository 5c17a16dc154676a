package main

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// zone answers for some names, whoever asks.
func zone(t *testing.T, hosts map[string][4]byte) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if a, ok := hosts[q.Name.String()]; ok && q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: a}}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return pc.LocalAddr().String()
}

// A policy speaks of names: what a program reaches by a name that is permitted,
// and by no other, and by no number. A name that is bound to this host again (DNS
// rebinding) is none.
func TestPolicyByName(t *testing.T) {
	warm(t)
	need(t, "curl")
	resolver := zone(t, map[string][4]byte{"app.example.": {198, 51, 100, 7}, "other.example.": {198, 51, 100, 8}, "evil.app.example.": {127, 0, 0, 1}})
	plugin, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	p := policy(t, fmt.Sprintf(`version: 1
proxies:
  - {id: names, kind: dns, address: %q}
  - {id: look, kind: inspect}
callouts:
  - id: redirect
    wasm: %s
    config:
      rules:
        - {destinations: [0.0.0.0/0], ports: ["53"], proxy: "${proxy:names}", proxy_pid: "${pid}"}
        - {destinations: [198.51.100.7/32], ports: ["80"], proxy: "${proxy:look}", proxy_pid: "${pid}"}
filters:
  - {name: redirects, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: redirect}
  - {name: by name, layer: ALE_AUTH_CONNECT_V4, action: permit, weight: 9, conditions: [{field: PEER_NAME, value: [app.example, evil.app.example]}]}
  - {name: nothing else, layer: ALE_AUTH_CONNECT_V4, action: block, weight: 1, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`, resolver, plugin))
	for _, mode := range []string{"--isolate=false", "--isolate"} {
		get := func(url string) result {
			return calloutd(t, "run", mode, "--policy", p, "--summary", "--", "curl", "-4", "-sS", "--noproxy", "*", url)
		}
		r := get("http://app.example/")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)
		require.Contains(t, r.stderr, "to app.example (198.51.100.7:80): redirected to")

		for url, to := range map[string]string{"http://other.example/": "198.51.100.8:80", "http://198.51.100.9/": "198.51.100.9:80", "http://evil.app.example/": "127.0.0.1:80"} {
			r = get(url)
			require.Equal(t, 7, r.code, "%s: curl's code for a failed connect: %s", url, r.stderr)
			require.Contains(t, r.stderr, `by filter 3 "nothing else"`)
			require.Contains(t, r.stderr, "to "+to+": blocked")
		}
	}
}
