package guest_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/sample"
	"github.com/calloutd/calloutd/host/redirect"
)

const javascript = "../../sdk/js/engine.wasm"

// asConfig is a configuration of split as a guest gets it: the engine for scripts has the
// script in its own.
func asConfig(t testing.TB, file string, config []byte) []byte {
	t.Helper()
	if file != javascript {
		return config
	}
	text, err := os.ReadFile("../../sdk/js/example/split.js")
	require.NoError(t, err)
	config, err = json.Marshal(map[string]string{"script": string(text), "config": string(config)})
	require.NoError(t, err)
	return config
}

// splitFiles are the example of every SDK, also of those that no benchmark has.
func splitFiles() []string {
	files := []string{javascript}
	for _, s := range splits {
		files = append(files, s.file)
	}
	return files
}

// Whatever connects, the example decides in every language as its first lines say.
func TestSplitsDecideAlike(t *testing.T) {
	list := sample.NewList()
	var modules []*guest.Module
	for _, file := range splitFiles() {
		modules = append(modules, loadFile(t, file, guest.ModuleOptions{Config: asConfig(t, file, sample.Config()), Slots: 1}))
	}
	rapid.Check(t, func(rt *rapid.T) {
		c := splitCall(rt)
		to := c.Connect.Remote
		redirects := (c.State == redirect.NotRedirected || c.State == redirect.RedirectedByOther) && c.In.Protocol == fwps.ProtocolTCP && to.Port() == 443 &&
			to.Addr().Unmap().Is4() && strings.HasPrefix(c.In.AppID, sample.Program) && !list.Has(to.Addr().Unmap())
		var first *fwps.Verdict
		for i, m := range modules {
			got, err := ask(m, c)
			require.NoError(rt, err, splitFiles()[i])
			require.Equal(rt, fwp.ActionPermit, got.Action, splitFiles()[i])
			require.Equal(rt, redirects, got.Redirect, splitFiles()[i])
			if first == nil {
				first = got
			}
			require.Equal(rt, [...]any{first.To, first.TargetPID, string(first.Record), first.Reason}, [...]any{got.To, got.TargetPID, string(got.Record), got.Reason}, splitFiles()[i])
		}
	})
}

// splitCall is a connection near to what split's decision is about.
func splitCall(t *rapid.T) *fwps.Call {
	nets := sample.Networks()
	near := func(t *rapid.T) netip.Addr {
		a := nets[rapid.IntRange(0, len(nets)-1).Draw(t, "network")].Addr().As4()
		a[rapid.IntRange(0, 3).Draw(t, "byte")] ^= rapid.Byte().Draw(t, "bits")
		return netip.AddrFrom4(a)
	}
	addr := rapid.OneOf(rapid.Custom(near), rapid.Map(rapid.Uint32(), func(n uint32) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	})).Draw(t, "address")
	if addr.IsUnspecified() { // Nobody is asked about it here: package ale asks about where it arrives.
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	layer := fwpm.LayerALEConnectRedirectV4
	switch rapid.SampledFrom([]string{"IPv4", "dual-stack", "IPv6", "nearly mapped"}).Draw(t, "family") {
	case "dual-stack":
		addr, layer = netip.AddrFrom16(addr.As16()), fwpm.LayerALEConnectRedirectV6
	case "IPv6":
		b := addr.As16()
		b[0], b[1] = 0x20, 0x01
		addr, layer = netip.AddrFrom16(b), fwpm.LayerALEConnectRedirectV6
	case "nearly mapped":
		b := addr.As16()
		b[rapid.IntRange(0, 11).Draw(t, "at")] ^= 1
		addr, layer = netip.AddrFrom16(b), fwpm.LayerALEConnectRedirectV6
	}
	remote := netip.AddrPortFrom(addr, rapid.SampledFrom([]uint16{443, 443, 443, 80, 0, 65535, 0xbb01}).Draw(t, "port"))
	app := rapid.OneOf(rapid.SampledFrom([]string{"/usr/bin/curl", "/usr/bin/", "/usr/bin", "", "/usr/binary", "/opt/usr/bin/x", "/usr/bin/" + strings.Repeat("x", 4000), "/usr/bin/ \xff"}),
		rapid.Map(rapid.String(), func(s string) string { return "/usr/bin/" + s })).Draw(t, "program")
	return &fwps.Call{
		In: &fwps.Incoming{Layer: layer, Remote: remote, AppID: app, Protocol: rapid.SampledFrom([]uint8{fwps.ProtocolTCP, fwps.ProtocolTCP, fwps.ProtocolUDP, 0}).Draw(t, "protocol"),
			ProcessID: rapid.Uint32().Draw(t, "process"), UserID: 1000, UserKnown: true, EndpointID: rapid.Uint64().Draw(t, "endpoint")},
		Filter: &fwpm.Filter{ID: 7}, Connect: &fwps.ConnectRequest{Remote: remote},
		State: redirect.State(rapid.IntRange(0, 3).Draw(t, "state")),
	}
}

// What one refuses to be configured with all refuse.
func TestSplitsAreConfiguredAlike(t *testing.T) {
	rt := newRuntime(t)
	for config, right := range map[string]bool{
		"proxy 8443 77": true, "proxy 8443 77\n": true, "proxy 8443 77\n0.0.0.0/0\n255.255.255.255/32": true, "proxy 1 1\n198.51.100.7/24\n": true,
		"": false, "proxy": false, "proxy 8443": false, "proxy 8443 0": false, "proxy 65536 77": false, "proxy 8443 77\n198.51.100/24": false,
		"proxy 8443 77\n198.51.100.256/24": false, "proxy 8443 77\n198.51.100.0/33": false, "proxy 8443 77\n198.51.100.0": false,
		"proxy 8443 4294967296": false, "proxy 8443 77\n198.51.100.0/99999999999999999999": false,
	} {
		for _, file := range splitFiles() {
			wasm, err := os.ReadFile(file)
			require.NoError(t, err)
			m, err := rt.Load(t.Context(), file, wasm, guest.ModuleOptions{Config: asConfig(t, file, []byte(config)), Slots: 1})
			require.Equal(t, right, err == nil, "%s with %q: %v", file, config, err)
			if m != nil {
				require.NoError(t, m.Close(context.Background()))
			}
		}
	}
}
