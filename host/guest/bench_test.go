package guest_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/abi"
)

// The decision of the benchmarks is that of the SDKs' example, split: TCP to port
// 443 of a program under /usr/bin, to none of 64 networks, is redirected with a
// record of 48 bytes; all else is permitted.

// networks are 64, of /16 to /24.
func networks() (out []netip.Prefix) {
	for i := range 64 {
		a := netip.AddrFrom4([4]byte{byte(20 + i), byte(i * 3), byte(i), 0})
		out = append(out, netip.PrefixFrom(a, 16+i%9).Masked())
	}
	return out
}

// splitConfig is the configuration of split, and proxyConfig that of the plugin
// proxy-redirect for the same decision, but for the program.
func splitConfig() []byte {
	b := []byte("proxy 8443 77\n")
	for _, p := range networks() {
		b = fmt.Appendf(b, "%v\n", p)
	}
	return b
}

func proxyConfig() []byte {
	var list []string
	for _, p := range networks() {
		list = append(list, p.String())
	}
	b, _ := json.Marshal(map[string]any{"rules": []any{map[string]any{
		"destinations": list, "ports": []string{"443"}, "proxy": "127.0.0.1:8443", "proxy_pid": 77}}})
	return b
}

// connections are eight: four are redirected, one is to the 41st network, one is
// of another program, one UDP and one to another port.
func connections() (out []*fwps.Call) {
	for i, c := range []struct{ to, app string }{
		{"93.184.216.34:443", "/usr/bin/curl"}, {"140.82.121.3:443", "/usr/bin/git"},
		{netip.AddrPortFrom(networks()[40].Addr().Next(), 443).String(), "/usr/bin/curl"},
		{"151.101.1.69:443", "/usr/bin/python3.11"}, {"151.101.1.69:443", "/opt/google/chrome/chrome"},
		{"8.8.8.8:53", "/usr/bin/dig"}, {"1.1.1.1:80", "/usr/bin/curl"}, {"203.0.113.9:443", "/usr/bin/firefox-esr"},
	} {
		remote := netip.MustParseAddrPort(c.to)
		protocol := fwps.ProtocolTCP
		if remote.Port() == 53 {
			protocol = fwps.ProtocolUDP
		}
		out = append(out, &fwps.Call{
			In: &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: protocol, Remote: remote, AppID: c.app,
				ProcessID: 4242, UserID: 1000, UserKnown: true, EndpointID: uint64(i + 1)},
			Filter: &fwpm.Filter{ID: 7}, Connect: &fwps.ConnectRequest{Remote: remote}})
	}
	return out
}

// native is the same decision as a closure in Go.
func native() fwps.Callout {
	var nets, masks []uint32
	for _, p := range networks() {
		a := p.Addr().As4()
		nets = append(nets, binary.BigEndian.Uint32(a[:]))
		masks = append(masks, ^uint32(0)<<(32-p.Bits()))
	}
	listed := func(a uint32) bool {
		for i := range nets {
			if a&masks[i] == nets[i] {
				return true
			}
		}
		return false
	}
	proxy := netip.MustParseAddrPort("127.0.0.1:8443")
	return fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		to, v4 := c.Connect.Remote, c.Connect.Remote.Addr().As4()
		v.Action = fwp.ActionPermit
		if c.In.Protocol != fwps.ProtocolTCP || to.Port() != 443 || !strings.HasPrefix(c.In.AppID, "/usr/bin/") || listed(binary.BigEndian.Uint32(v4[:])) {
			return nil
		}
		v.Redirect, v.To, v.TargetPID = true, proxy, 77
		b := append(v.Record[:0], "SPL1"...)
		a := to.Addr().As16()
		b = append(b, a[:]...)
		b = binary.LittleEndian.AppendUint16(b, to.Port())
		b = append(b, c.In.Protocol, 4)
		b = binary.LittleEndian.AppendUint32(b, c.In.ProcessID)
		b = append(b, make([]byte, 12)...)
		v.Record = binary.LittleEndian.AppendUint64(b, c.In.EndpointID)
		return nil
	})
}

// splits are the examples of the SDKs.
var splits = []struct{ name, file string }{
	{"c", "../../sdk/c/example/split.wasm"},
	{"rust", "../../sdk/rust/examples/split.wasm"},
	{"zig", "../../sdk/zig/example/split.wasm"},
	{"wat", "../../sdk/wat/split.wasm"},
	{"assemblyscript", "../../sdk/assemblyscript/example/split.wasm"},
}

const proxyRedirect = "../../plugins/proxy-redirect/proxy-redirect.wasm"

func loadFile(t testing.TB, file string, o guest.ModuleOptions) *guest.Module {
	t.Helper()
	wasm, err := os.ReadFile(file)
	require.NoError(t, err)
	m, err := newRuntime(t).Load(t.Context(), file, wasm, o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close(context.Background())) })
	return m
}

// What is compared decides the same, to the byte of the record.
func TestSplitsDecideLikeTheClosure(t *testing.T) {
	for _, s := range splits {
		for name, o := range map[string]guest.ModuleOptions{"guarded": {Config: splitConfig(), Slots: 1}, "unguarded": guest.Unguarded(guest.ModuleOptions{Config: splitConfig(), Slots: 1})} {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				m, closure := loadFile(t, s.file, o), native()
				for _, c := range connections() {
					want, got := new(fwps.Verdict), new(fwps.Verdict)
					require.NoError(t, closure.Classify(t.Context(), c, want))
					require.NoError(t, m.Classify(t.Context(), c, got))
					if want.Context == nil {
						want.Context = got.Context
					}
					assert.Equal(t, want, got, c.In.Remote.String())
				}
			})
		}
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	m := load(t, "good", guest.ModuleOptions{Slots: 2})
	for port := uint16(1); port <= 7; port++ {
		c := call(port)
		c.Hop = &redirect.Hop{Record: []byte("record"), Context: []byte("context")}
		assert.Zero(t, allocations(t, m, c), fmt.Sprint(port))
	}
}

// allocations of one decision.
func allocations(t *testing.T, m *guest.Module, c *fwps.Call) float64 {
	v := new(fwps.Verdict)
	return testing.AllocsPerRun(500, func() {
		v.Reset()
		if err := m.Classify(context.Background(), c, v); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkClassify compares a decision with what it cannot be faster than: a
// closure in Go, and an empty call.
func BenchmarkClassify(b *testing.B) {
	b.Run("native", func(b *testing.B) { classify(b, native()) })
	b.Run("empty", emptyCall)
	for _, s := range splits {
		compare(b, s.name, s.file, splitConfig(), 4)
	}
	compare(b, "go", proxyRedirect, proxyConfig(), 1)
}

// compare runs a guest with and without its guard.
func compare(b *testing.B, name, file string, config []byte, redirects int) {
	o := guest.ModuleOptions{Config: config, Slots: 1}
	plain := loadFile(b, file, guest.Unguarded(o))
	decides(b, plain, redirects)
	b.Run(name+"/unguarded", func(b *testing.B) { classify(b, plain) })
	m := loadFile(b, file, o)
	decides(b, m, redirects)
	b.Run(name+"/guarded", func(b *testing.B) { classify(b, m) })
}

// decides makes sure that a guest does what is measured: split redirects four
// connections, proxy-redirect with the same networks the one that split does not.
func decides(b *testing.B, m *guest.Module, redirects int) {
	v, n := new(fwps.Verdict), 0
	for _, c := range connections() {
		v.Reset()
		require.NoError(b, m.Classify(b.Context(), c, v))
		if v.Redirect {
			n++
		}
	}
	require.Equal(b, redirects, n)
}

// BenchmarkParallel is the C guest on one goroutine and on as many as there are
// processors.
func BenchmarkParallel(b *testing.B) {
	m := loadFile(b, splits[0].file, guest.ModuleOptions{Config: splitConfig()})
	b.Run("one", func(b *testing.B) { classify(b, m) })
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			calls, v, n := connections(), new(fwps.Verdict), 0
			for pb.Next() {
				v.Reset()
				if err := m.Classify(context.Background(), calls[n%len(calls)], v); err != nil {
					b.Error(err)
				}
				n++
			}
		})
	})
}

func classify(b *testing.B, f fwps.Callout) {
	calls, v, n := connections(), new(fwps.Verdict), 0
	b.ReportAllocs()
	for b.Loop() {
		v.Reset()
		if err := f.Classify(context.Background(), calls[n%len(calls)], v); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// emptyCall is what entering and leaving a guest costs.
func emptyCall(b *testing.B) {
	rt := wazero.NewRuntime(b.Context())
	defer rt.Close(context.Background())
	mod, err := rt.Instantiate(b.Context(), wasm(b, "good"))
	require.NoError(b, err)
	f, stack := mod.ExportedFunction(abi.ExportMarker), make([]uint64, 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := f.CallWithStack(context.Background(), stack); err != nil {
			b.Fatal(err)
		}
	}
}
