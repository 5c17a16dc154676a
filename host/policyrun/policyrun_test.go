package policyrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/sdk/abi"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

const quickstart = "../../examples/quickstart/policy.yaml"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func runner(t *testing.T, o Options) *Runner {
	t.Helper()
	o.CacheDir = cacheDir(t)
	r := New(o)
	t.Cleanup(r.Close)
	return r
}

// cacheDir is calloutd's: a test that has to compile each module takes long.
func cacheDir(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(dir, "calloutd", "wasm")
}

// get asks for a page through the policy in force.
func get(t *testing.T, r *Runner, url string) (string, error) {
	t.Helper()
	d, err := r.Dialer()
	require.NoError(t, err)
	web := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	answer, err := web.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(body), nil
}

func write(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

const blocksAll = `version: 1
filters: [{name: nothing, layer: ALE_AUTH_CONNECT, action: block}]
`

func TestNothingIsConnectedBeforeThereIsAPolicy(t *testing.T) {
	r := runner(t, Options{})
	require.Nil(t, r.Policy())
	require.Nil(t, r.Handoff(netip.MustParseAddrPort("127.0.0.1:1")))
	_, err := get(t, r, "http://198.51.100.7/")
	require.ErrorContains(t, err, "no policy is in force yet")
	require.NoError(t, r.Load(t.Context(), quickstart))
	body, err := get(t, r, "http://198.51.100.7/")
	require.NoError(t, err)
	require.Contains(t, body, `"original_destination":"198.51.100.7:80"`)
}

func TestAPolicyThatIsWrongLeavesTheOneBeforeInForce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	var inputs []string
	refuse := error(nil)
	r := runner(t, Options{OnInput: func(path string) { inputs = append(inputs, filepath.Base(path)) }, Before: func(*Policy) error { return refuse }})
	write(t, file, blocksAll)
	require.NoError(t, r.Load(t.Context(), file))
	good := r.Policy()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	for text, want := range map[string]string{
		"version: 1\nfilters: [{layer: NOWHERE}]\n":                                            "policy.yaml:2:",
		"version: 1\ncallouts: [{id: x, wasm: x.wasm}]\n":                                      "policy.yaml:2:26: open",
		"version: 1\nproxies: [{id: x, listen: '192.0.2.1:1', kind: peek}]\n":                  "this system has no address 192.0.2.1",
		"version: 1\nproxies: [{id: x, listen: '192.0.2.1:1', kind: dns}]\n":                   "this system has no address 192.0.2.1",
		"version: 1\nproxies: [{id: x, listen: '" + busy.Addr().String() + "', kind: peek}]\n": "something else listens at " + busy.Addr().String(),
		"version: 1\nproxies: [{id: x, listen: '" + busy.Addr().String() + "', kind: dns}]\n":  "something else listens at " + busy.Addr().String(),
		"version: 1\ncallouts: [{id: x, go: x}]\n":                                             "is not a folder with Go source",
	} {
		write(t, file, text)
		require.ErrorContains(t, r.Load(t.Context(), file), want)
		require.Same(t, good, r.Policy())
	}
	require.Contains(t, inputs, "x.wasm", "who watches it hears when it comes")
	require.Contains(t, inputs, "go.mod")
	write(t, file, blocksAll)
	refuse = errors.New("the kernel has no room")
	require.ErrorIs(t, r.Load(t.Context(), file), refuse)
	require.Same(t, good, r.Policy())
	_, err = get(t, r, "http://198.51.100.7/")
	require.ErrorContains(t, err, `"nothing"`)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("who asked for it has gone")
	cancel(gone)
	require.ErrorIs(t, r.Load(ctx, quickstart), gone)
	require.Same(t, good, r.Policy())
}

// A connection that was redirected under the policy before is the same callout's
// under the next, and every flow is asked about again.
func TestAPolicyTakesThePlaceOfAnother(t *testing.T) {
	r := runner(t, Options{})
	require.NoError(t, r.Load(t.Context(), quickstart))
	old, layers := r.Policy(), throne{r}
	var before [fwpm.NumLayers]uint64
	for l := range before {
		before[l] = layers.Generation(fwpm.LayerID(l))
	}
	require.NoError(t, r.Load(t.Context(), quickstart))
	next := r.Policy()
	require.NotSame(t, old, next)
	require.Equal(t, old.Handles, next.Handles)
	require.Equal(t, old.Proxies, next.Proxies, "the proxy runs on")
	for l, since := range before {
		require.Greater(t, layers.Generation(fwpm.LayerID(l)), since)
		require.Equal(t, fwp.ReasonPolicyChange, layers.ReauthorizeReason(fwpm.LayerID(l), since), "ALE-LAY-12")
	}
	require.Equal(t, 1, r.Retired())
	require.True(t, old.idle(), "CO-REG-05")
}

// A callout is known by its ID, also where others came before it or it was not there for a while.
func TestACalloutKeepsItsHandle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	wasm, err := filepath.Abs("../../plugins/proxy-redirect/proxy-redirect.wasm")
	require.NoError(t, err)
	r := runner(t, Options{})
	had := map[fwpm.CalloutID]redirect.Handle{}
	for _, ids := range [][]fwpm.CalloutID{{"a"}, {"b"}, {"b", "a"}} {
		text := "version: 1\ncallouts:\n"
		for _, id := range ids {
			text += fmt.Sprintf("  - {id: %s, wasm: %q, config: {rules: [], otherwise: permit}}\n", id, wasm)
		}
		write(t, file, text)
		require.NoError(t, r.Load(t.Context(), file))
		for id, h := range r.Policy().Handles {
			if old, was := had[id]; was {
				require.Equal(t, old, h)
			}
			had[id] = h
		}
	}
	require.Len(t, had, 2)
	require.NotEqual(t, had["a"], had["b"])
}

func TestAProxyThatThePolicyHasNoMoreEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	r := runner(t, Options{})
	require.NoError(t, r.Load(t.Context(), quickstart))
	at := r.Policy().Proxies["inspect"].String()
	c, err := net.Dial("tcp", at)
	require.NoError(t, err)
	c.Close()
	write(t, file, blocksAll)
	require.NoError(t, r.Load(t.Context(), file))
	r.wg.Wait()
	_, err = net.Dial("tcp", at)
	require.Error(t, err)
	require.NoError(t, r.Load(t.Context(), quickstart))
	c, err = net.Dial("tcp", r.Policy().Proxies["inspect"].String())
	require.NoError(t, err, "and is there again")
	c.Close()
}

func TestPoliciesThatAreNotNeededAnyMoreGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retired // The clock is the test's.
		var closed atomic.Int32
		policy := func() *Policy { return &Policy{closers: []func(){func() { closed.Add(1) }}} }
		wait := func() { time.Sleep(2 * retireAfter); synctest.Wait() }
		for range maxRetired + 3 {
			r.add(policy())
		}
		require.EqualValues(t, 3, closed.Load())
		var busy atomic.Bool
		busy.Store(true)
		r.mu.Lock()
		require.Len(t, r.policies, maxRetired)
		r.policies[0].policy.leave = []func() error{func() error {
			if busy.Load() {
				return ntstatus.DeviceBusy
			}
			return nil
		}}
		r.mu.Unlock()
		wait()
		r.mu.Lock()
		require.Len(t, r.policies, 1, "CO-REG-05")
		r.mu.Unlock()
		require.EqualValues(t, maxRetired+2, closed.Load())
		busy.Store(false)
		wait()
		r.mu.Lock()
		require.Empty(t, r.policies)
		require.Nil(t, r.timer)
		r.mu.Unlock()
		require.EqualValues(t, maxRetired+3, closed.Load())

		r.add(policy())
		for range 2 {
			r.close()
			wait()
			require.EqualValues(t, maxRetired+4, closed.Load(), "once")
		}
	})
}

func TestWhatIsClosedTakesNoPolicy(t *testing.T) {
	r := New(Options{CacheDir: cacheDir(t)})
	require.NoError(t, r.Load(t.Context(), quickstart))
	r.Drain(t.Context())
	require.ErrorIs(t, r.Load(t.Context(), quickstart), ErrClosed)
	r.Close()
	r.Close()
	_, err := r.Dialer()
	require.ErrorIs(t, err, ErrClosed)
}

// A file that nobody read anything into permits everything, as a policy; one that says
// so is a policy.
func TestAnEmptyFileIsNoPolicy(t *testing.T) {
	r := runner(t, Options{})
	for _, file := range []*policyfile.File{nil, {}} {
		require.ErrorContains(t, r.Use(t.Context(), quickstart, file), "no policy was given")
		require.Nil(t, r.Policy())
	}
	_, err := Describe(t.Context(), quickstart, Description{File: new(policyfile.File)})
	require.ErrorContains(t, err, "no policy was given")
	_, err = get(t, r, "http://198.51.100.7/")
	require.ErrorContains(t, err, "no policy is in force yet")
	file, err := policyfile.Parse("policy.yaml", []byte("version: 1\n"))
	require.NoError(t, err)
	require.NoError(t, r.Use(t.Context(), "policy.yaml", file))
	require.Same(t, file, r.Policy().File)
}

func TestADescribedPolicyIsTheSameEverywhere(t *testing.T) {
	decided := 0
	p, err := Describe(t.Context(), quickstart, Description{Options: Options{CacheDir: cacheDir(t), OnDecision: func(p *Policy, _ *fwps.Incoming, d *fwps.Decision) {
		decided++
		require.Equal(t, quickstart, p.Path)
	}}})
	require.NoError(t, err)
	defer p.Close()
	at := netip.MustParseAddrPort("127.0.0.1:61001")
	require.Equal(t, map[string]netip.AddrPort{"inspect": at}, p.Proxies)
	px, ok := p.ProxyAt(netip.MustParseAddrPort("[::ffff:127.0.0.1]:61001"))
	require.True(t, ok)
	require.Equal(t, policyfile.ProxyInspect, px.Kind)
	require.EqualValues(t, 1, p.ProcessID)
	var d fwps.Decision
	p.Engine.Classify(t.Context(), &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("198.51.100.7:80")}, &d)
	require.Equal(t, at, d.Connect.Remote)
	require.Equal(t, 1, decided)
	require.Equal(t, "documentation web to the proxy", p.FilterName(d.Decider().Filter))
	require.Empty(t, p.FilterName(99))
	require.NoError(t, p.ReloadCallout(t.Context(), "proxy-redirect"))
	err = p.ReloadCallout(t.Context(), "other")
	require.ErrorIs(t, err, fwp.ErrCalloutNotFound)
	require.ErrorContains(t, err, `no module "other"`)
}

func TestWhatThePolicySaysIsWhatTheGuestGets(t *testing.T) {
	file, err := policyfile.Parse("policy.yaml", []byte(`version: 1
sets: [{id: s, prefixes: [192.0.2.0/24]}]
tables: [{id: t, rows: [{prefix: 10.0.0.0/8, value: 7}]}]
callouts:
  - {id: plain, wasm: x}
  - id: all
    wasm: x
    sets: [s]
    tables: [t]
    capabilities: [kv]
    limits: {fuel_slices: 2, start_fuel_slices: 3, slots: 4, spares: 5}
    on_failure: continue
    max_failures: 0
`))
	require.NoError(t, err)
	asked := map[string]guest.ModuleOptions{}
	_, err = Describe(t.Context(), "policy.yaml", Description{File: file, Options: Options{OnCallout: func(guest.Event) {},
		Module: func(_ context.Context, _ string, c policyfile.Callout, o *guest.ModuleOptions) ([]byte, error) {
			require.NotNil(t, o.Logf)
			require.NotNil(t, o.OnEvent)
			o.Logf, o.OnEvent = nil, nil // Functions cannot be compared.
			asked[string(c.ID)] = *o
			return nil, errors.New("nothing to load")
		}}})
	require.ErrorContains(t, err, "policy.yaml:5:23: nothing to load")
	prefix := netip.MustParsePrefix
	require.Equal(t, map[string]guest.ModuleOptions{
		"plain": {Config: asked["plain"].Config, Journals: true, TriesOut: true, Withhold: ^uint32(abi.CapLog | abi.CapRandom | abi.CapWall | abi.CapKV | abi.CapMetric)},
		"all": {
			Config: asked["all"].Config, Journals: true, TriesOut: true,
			Withhold: ^uint32(abi.CapKV | abi.CapSets | abi.CapTables), Sets: [][]netip.Prefix{{prefix("192.0.2.0/24")}},
			Tables:     [][]guest.Row{{{Prefix: prefix("10.0.0.0/8"), Value: 7}}},
			FuelSlices: 2, InitFuelSlices: 3, Slots: 4, Spares: 5, OnFailure: guest.FailContinue, MaxFailures: -1,
		},
	}, asked)
}

// A model stands for a program that is not here: it is described, and never in force.
func TestAModelOfAnotherProductIsNotEnforced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.yaml")
	write(t, file, `version: 1
callouts: [{id: other, model: redirector, config: {to: ["${proxy:other}"]}}]
proxies: [{id: other, kind: forward, forgets_records: true}]
filters: [{name: all, layer: ALE_CONNECT_REDIRECT_V4, action: callout, callout: other}]
`)
	err := runner(t, Options{}).Load(t.Context(), file)
	require.ErrorContains(t, err, "model.yaml:2:31: a model of another product is for sim, why, test, diff and replay")
	require.ErrorContains(t, err, "model.yaml:3:55: a model of another product")
	p, err := Describe(t.Context(), file, Description{})
	require.NoError(t, err)
	defer p.Close()
	in := fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, AppID: "/curl", Protocol: fwps.ProtocolTCP, Remote: netip.MustParseAddrPort("192.0.2.7:25")}
	var d fwps.Decision
	p.Engine.Classify(t.Context(), &in, &d)
	require.Equal(t, p.Proxies["other"], d.Connect.Remote)
}

// A Store that outlives the Runner has none of its records: nobody can accept what was
// redirected any more.
func TestACloseLeavesNoRecords(t *testing.T) {
	store := memstore.New(0)
	r := New(Options{Store: store, CacheDir: cacheDir(t)})
	defer r.Close()
	require.NoError(t, r.Load(t.Context(), quickstart))
	connect := func() error {
		_, err := r.Enforcer().NewCarrier().Connect(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"),
			Remote: netip.MustParseAddrPort("198.51.100.7:80"), ProcessID: 42, AppID: "/bin/app"}, nil,
			func(context.Context, ale.Target) (netip.AddrPort, error) {
				return netip.MustParseAddrPort("127.0.0.1:1"), nil
			})
		return err
	}
	require.NoError(t, connect())
	require.Equal(t, 1, store.Len())
	r.Close()
	require.Zero(t, store.Len())
	require.ErrorIs(t, connect(), ale.ErrClosed)
	_, err := r.Dialer()
	require.ErrorIs(t, err, ErrClosed)
}

// What a function of the Options needs of the network it has from the Dialer, also while a
// policy is loaded.
func TestAFunctionOfTheOptionsHasTheDialer(t *testing.T) {
	var r *Runner
	dialers := 0
	r = runner(t, Options{
		Before: func(*Policy) error {
			_, err := r.Dialer()
			dialers++
			return err
		},
		OnDecision: func(*Policy, *fwps.Incoming, *fwps.Decision) {
			if _, err := r.Dialer(); err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		},
	})
	require.NoError(t, r.Load(t.Context(), quickstart))
	require.NoError(t, r.Load(t.Context(), quickstart))
	require.Equal(t, 2, dialers)
}
