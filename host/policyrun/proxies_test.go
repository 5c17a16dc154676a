package policyrun

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/abi"
)

// Proxies of others are told of with their credentials as long as the policy has them.
func TestProxiesOfOthersAreThoseOfThePolicyInForce(t *testing.T) {
	const env = "CALLOUTD_TEST_LOGIN"
	file := filepath.Join(t.TempDir(), "policy.yaml")
	socks, front := netip.MustParseAddrPort("192.0.2.1:1080"), netip.MustParseAddrPort("192.0.2.2:80")
	r := runner(t, Options{})
	write(t, file, "version: 1\nproxies:\n  - {id: socks, kind: socks5, address: '192.0.2.1:1080', credentials: {env: "+env+"}}\n  - {id: front, kind: proxy-protocol, address: '192.0.2.2:80'}\n")
	require.ErrorContains(t, r.Load(t.Context(), file), "policy.yaml:3:71: the environment variable "+env+" is not set")
	require.Nil(t, r.Handoff(socks))
	t.Setenv(env, "me:secret")
	require.NoError(t, r.Load(t.Context(), file))
	require.Equal(t, &handoff.Proxy{Kind: handoff.SOCKS5, User: "me", Password: "secret"}, r.Handoff(socks))
	require.Equal(t, &handoff.Proxy{Kind: handoff.ProxyProtocol}, r.Handoff(front))
	require.Equal(t, map[string]netip.AddrPort{"socks": socks, "front": front}, r.Policy().Proxies)
	require.Equal(t, "socks", r.Policy().ProxyID(socks))
	write(t, file, "version: 1\n")
	require.NoError(t, r.Load(t.Context(), file))
	require.Nil(t, r.Handoff(socks))
}

func TestProxiesOfADescribedPolicy(t *testing.T) {
	file, err := policyfile.Parse("policy.yaml", []byte(`version: 1
proxies:
  - {id: socks, kind: socks5, address: "192.0.2.1:1080"}
  - {id: had, kind: forward}
  - {id: fixed, kind: forward, listen: "127.0.0.1:7"}
  - {id: any, kind: forward}
`))
	require.NoError(t, err)
	had := netip.MustParseAddrPort("127.0.0.1:5")
	p, err := Describe(t.Context(), "policy.yaml", Description{File: file, Proxies: map[string]netip.AddrPort{"had": had}})
	require.NoError(t, err)
	defer p.Close()
	require.Equal(t, map[string]netip.AddrPort{"socks": netip.MustParseAddrPort("192.0.2.1:1080"), "had": had,
		"fixed": netip.MustParseAddrPort("127.0.0.1:7"), "any": netip.MustParseAddrPort("127.0.0.1:61004")}, p.Proxies)
	refuse := errors.New("not this one")
	_, err = Describe(t.Context(), "policy.yaml", Description{File: file, Options: Options{Before: func(*Policy) error { return refuse }}})
	require.ErrorIs(t, err, refuse)
	_, err = Describe(t.Context(), filepath.Join(t.TempDir(), "none.yaml"), Description{})
	require.ErrorContains(t, err, "none.yaml")
}

// The handle of a callout is the key's wherever the key is.
func TestACalloutHasTheHandleOfTheKey(t *testing.T) {
	file, err := policyfile.Parse("policy.yaml", []byte("version: 1\ncallouts: [{id: other, model: redirector, config: {to: ['${proxy:p}']}}]\nproxies: [{id: p, kind: forward}]\n"))
	require.NoError(t, err)
	key := redirect.NewSealKey()
	p, err := Describe(t.Context(), "policy.yaml", Description{File: file, Options: Options{SealKey: &key}})
	require.NoError(t, err)
	defer p.Close()
	require.Equal(t, key.Handle("other"), p.Handles["other"])
}

// A callout is told names where a proxy learns them, and nowhere else.
func TestNamesAreForCalloutsWhereAProxyLearnsThem(t *testing.T) {
	for kind, learns := range map[string]bool{"dns": true, "forward": false} {
		file, err := policyfile.Parse("policy.yaml", []byte("version: 1\ncallouts: [{id: c, wasm: x}]\nproxies: [{id: p, kind: "+kind+"}]\n"))
		require.NoError(t, err)
		var got guest.ModuleOptions
		_, err = Describe(t.Context(), "policy.yaml", Description{File: file, Options: Options{
			Module: func(_ context.Context, _ string, _ policyfile.Callout, o *guest.ModuleOptions) ([]byte, error) {
				got = *o
				return nil, errors.New("nothing to load")
			}}})
		require.ErrorContains(t, err, "nothing to load")
		require.Equal(t, learns, got.Names != nil, kind)
		require.Equal(t, learns, got.Withhold&abi.CapNames == 0, kind)
	}
}

// A policy does not decide by names that a resolver has taught which it does not trust, and
// one that trusts it as the one before did goes on with what is known.
func TestNamesAreOfResolversThatThePolicyTrusts(t *testing.T) {
	r := New(Options{Logf: t.Logf})
	defer r.Close()
	use := func(proxies string) error {
		file, err := policyfile.Parse("policy.yaml", []byte("version: 1\nproxies: ["+proxies+"]\n"))
		require.NoError(t, err)
		return r.Use(t.Context(), "policy.yaml", file)
	}
	first, second := netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:53")
	to := netip.MustParseAddr("198.51.100.7")
	learn := func(resolver netip.AddrPort) {
		r.names.Learn(netip.Addr{}, resolver, "app.example", []netip.Addr{to}, time.Hour)
	}
	require.NoError(t, use("{id: names, kind: dns, address: '192.0.2.53:53'}"))
	learn(second)
	require.Empty(t, r.names.Name(netip.Addr{}, to))
	learn(first)
	require.Equal(t, "app.example", r.names.Name(netip.Addr{}, to))
	require.NoError(t, use("{id: again, kind: dns, address: '192.0.2.53:53'}, {id: more, kind: dns, address: '192.0.2.54:53'}"))
	require.Error(t, use("{id: names, kind: dns, listen: '192.0.2.1:1'}"))
	require.Equal(t, "app.example", r.names.Name(netip.Addr{}, to))
	learn(second)
	require.NoError(t, use("{id: names, kind: dns, address: '192.0.2.53:53'}"))
	require.Empty(t, r.names.Name(netip.Addr{}, to))
	learn(first)
	require.Equal(t, "app.example", r.names.Name(netip.Addr{}, to))
	require.NoError(t, use("{id: look, kind: inspect}"))
	require.Empty(t, r.names.Name(netip.Addr{}, to))
}
