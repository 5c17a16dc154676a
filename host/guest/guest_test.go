package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/abi"
)

// cache keeps compiled modules for the whole run: under the race detector the
// compiler takes many seconds for a Go guest.
var cache string

// unprepared is set for a test of a main that does not call CompileChild.
const unprepared = "CALLOUTD_TEST_UNPREPARED"

func TestMain(m *testing.M) {
	if os.Getenv(unprepared) == "" {
		guest.CompileChild()
	}
	dir, err := os.MkdirTemp("", "calloutd-guest-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cache = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func wasm(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".wasm"))
	require.NoError(t, err)
	return b
}

func newRuntime(t testing.TB) *guest.Runtime {
	t.Helper()
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: cache})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, rt.Close(context.Background())) })
	return rt
}

func load(t testing.TB, name string, o guest.ModuleOptions) *guest.Module {
	t.Helper()
	m, err := newRuntime(t).Load(t.Context(), name, wasm(t, name), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close(context.Background())) })
	return m
}

func call(port uint16) *fwps.Call {
	remote := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)
	return &fwps.Call{
		In: &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: fwps.ProtocolTCP,
			Remote: remote, AppID: "/usr/bin/curl", ProcessID: 9, UserKnown: true},
		Filter:  &fwpm.Filter{ID: 7},
		Connect: &fwps.ConnectRequest{Remote: remote},
	}
}

func ask(m *guest.Module, c *fwps.Call) (*fwps.Verdict, error) {
	v := new(fwps.Verdict)
	err := m.Classify(context.Background(), c, v)
	v.Hint = 0 // which is no part of the answer
	return v, err
}

// TestSources keeps the binaries what their sources say.
func TestSources(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("wat2wasm is not installed (package wabt)")
	}
	require.NoError(t, err)
	sources, err := filepath.Glob("testdata/*.wat")
	require.NoError(t, err)
	more, err := filepath.Glob("meter/testdata/*.wat")
	require.NoError(t, err)
	sources = append(sources, more...)
	require.Greater(t, len(sources), 1)
	for _, src := range sources {
		out := filepath.Join(t.TempDir(), "out.wasm")
		msg, err := exec.CommandContext(t.Context(), tool, src, "-o", out).CombinedOutput()
		require.NoError(t, err, "%s", msg)
		want, err := os.ReadFile(out)
		require.NoError(t, err)
		got, err := os.ReadFile(strings.TrimSuffix(src, ".wat") + ".wasm")
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got), "%s is not what %s makes", strings.TrimSuffix(src, ".wat")+".wasm", src)
	}
}

func TestAnswers(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	proxy := netip.MustParseAddrPort("127.0.0.1:8080")
	hop := &redirect.Hop{Record: bytes.Repeat([]byte("r"), 3000), Context: []byte("context")}
	for port, want := range map[uint16]fwps.Verdict{
		1: {Action: fwp.ActionPermit},
		2: {Action: fwp.ActionBlock, Reason: "no such place"},
		3: {Action: fwp.ActionPermit, Redirect: true, To: proxy, TargetPID: 77, Record: []byte("no such"), Context: []byte("place")},
		4: {Action: fwp.ActionContinue},
		5: {Action: fwp.ActionPermit, Redirect: true, To: proxy, TargetPID: 77, Record: hop.Record, Context: hop.Context},
		6: {Action: fwp.ActionPermit, ClearActionRight: true},
		7: {Action: fwp.ActionPermit, Redirect: true, To: netip.MustParseAddrPort("[::ffff:127.0.0.1]:8080"), TargetPID: 77, NoHandle: true},
	} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			c := call(port)
			c.Hop = hop
			v, err := ask(m, c)
			require.NoError(t, err)
			assert.Equal(t, want, *v)
		})
	}
	assert.Zero(t, m.Stats().Replaced)
}

// TestAnIPv4AnswerToADualStackSocketIsWrittenAsItHasThem (ALE-LAY-16): of a bind too,
// and of nothing else.
func TestAnIPv4AnswerToADualStackSocketIsWrittenAsItHasThem(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	for _, c := range []struct {
		layer         fwpm.LayerID
		remote, local string
		want          string
	}{
		{fwpm.LayerALEConnectRedirectV4, "192.0.2.7:3", "0.0.0.0:0", "127.0.0.1:8080"},
		{fwpm.LayerALEConnectRedirectV6, "[::ffff:192.0.2.7]:3", "[::]:0", "[::ffff:127.0.0.1]:8080"},
		{fwpm.LayerALEConnectRedirectV6, "[2001:db8::7]:3", "[::ffff:192.0.2.1]:0", "127.0.0.1:8080"},
		{fwpm.LayerALEBindRedirectV6, "[2001:db8::7]:3", "[::ffff:192.0.2.1]:0", "[::ffff:127.0.0.1]:8080"},
		{fwpm.LayerALEBindRedirectV6, "[::ffff:192.0.2.7]:3", "[::]:0", "127.0.0.1:8080"},
	} {
		q := call(3)
		q.In.Layer, q.In.Remote, q.In.Local = c.layer, netip.MustParseAddrPort(c.remote), netip.MustParseAddrPort(c.local)
		v, err := ask(m, q)
		require.NoError(t, err)
		assert.Equal(t, c.want, v.To.String(), "%v %s %s", c.layer, c.remote, c.local)
	}
}

// TestLargest emits the longest record and context, and asks about the proxy's
// connection, which carries both, for a program with the longest path.
func TestLargest(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	v, err := ask(m, call(9))
	require.NoError(t, err)
	hop := &redirect.Hop{Record: v.Record, Context: v.Context}
	require.Equal(t, bytes.Repeat([]byte("r"), abi.MaxRecord), hop.Record)
	require.Equal(t, bytes.Repeat([]byte("c"), abi.MaxContext), hop.Context)

	again := call(5)
	again.Hop, again.In.AppID = hop, strings.Repeat("p", abi.MaxApp)
	v, err = ask(m, again)
	require.NoError(t, err)
	assert.Equal(t, hop.Record, v.Record, "the guest saw the whole record")
	assert.Equal(t, hop.Context, v.Context, "kept without being seen")

	context := func(c *fwps.Call) (off, n uint32) {
		c.Hop = hop
		v, err := ask(m, c)
		require.NoError(t, err)
		return binary.LittleEndian.Uint32(v.Record), binary.LittleEndian.Uint32(v.Record[4:])
	}
	again = call(10)
	again.In.AppID = strings.Repeat("p", abi.MaxApp)
	off, n := context(again)
	assert.Zero(t, off, "left out")
	assert.EqualValues(t, abi.MaxContext, n, "its length is told")
	off, _ = context(call(10))
	assert.NotZero(t, off, "there is room for it beside a short path")
}

// TestTooLarge is no fault of the guest's.
func TestTooLarge(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	for want, c := range map[string]*fwps.Call{
		"path has 4097 bytes":   {In: &fwps.Incoming{AppID: strings.Repeat("p", abi.MaxApp+1)}},
		"name has 257 bytes":    {In: &fwps.Incoming{Other: map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob(strings.Repeat("n", abi.MaxHostname+1))}}},
		"record has 3457 bytes": {In: &fwps.Incoming{}, Hop: &redirect.Hop{Record: make([]byte, abi.MaxRecord+1)}},
	} {
		_, err := ask(m, c)
		require.ErrorContains(t, err, want)
	}
	assert.Zero(t, m.Stats().Replaced)
	_, err := ask(m, call(1))
	assert.NoError(t, err)
}

func TestHousekeeping(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	for range 1000 {
		_, err := ask(m, call(1))
		require.NoError(t, err)
	}
	assert.Eventually(t, func() bool {
		v, err := ask(m, call(8))
		return err == nil && v.Action == fwp.ActionPermit
	}, time.Minute, time.Millisecond)
}

func TestConfig(t *testing.T) {
	rt := newRuntime(t)
	for _, c := range []struct {
		module, config, want string
	}{
		{"good", strings.Repeat("x", 20000), ""},
		{"good", "!", "callout_init refused the configuration: code 1"},
		{"bad", "x", "takes no configuration"},
	} {
		m, err := rt.Load(t.Context(), c.module, wasm(t, c.module), guest.ModuleOptions{Config: []byte(c.config), Slots: 1})
		if c.want != "" {
			assert.ErrorContains(t, err, c.want)
			continue
		}
		require.NoError(t, err)
		assert.NoError(t, m.Close(t.Context()))
	}
}

func TestRefused(t *testing.T) {
	rt := newRuntime(t)
	good := wasm(t, "good")
	for _, c := range []struct {
		name string
		wasm []byte
		want []string
	}{
		{"imports", wasm(t, "imports"), []string{"env.open (function)", "callout.shout (function)", "fd_dance", "imports.callout_classify", "env.table (table)", "env.global (global)"}},
		{"command", wasm(t, "command"), []string{"-buildmode=c-shared"}},
		{"empty", wasm(t, "empty"), []string{"callout_abi_v1", "callout_classify", "memory"}},
		{"types", wasm(t, "types"), []string{"fd_close has type (i64) -> (i32), want (i32) -> (i32)", "callout_abi_v1 has type () -> (i64), want () -> (i32)"}},
		{"reserved", wasm(t, "reserved"), []string{"reserved"}},
		{"bigmemory", wasm(t, "bigmemory"), []string{"257 pages", "limit is 256"}},
		{"outside", wasm(t, "outside"), []string{"outside the memory"}},
		{"startloop", wasm(t, "startloop"), []string{"start: start function: the fuel budget is spent (endless loop or recursion?) in $0"}},
		{"startdeep", wasm(t, "startdeep"), []string{"start: start function: the call depth is over the limit (recursion?) in $0 < $0"}},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), []string{"component"}},
		{"oversized", make([]byte, guest.MaxModuleSize+1), []string{"limit"}},
		{"text", []byte("(module)"), []string{"not a valid module"}},
		{"nothing", nil, []string{"not a valid module"}},
		{"truncated", good[:len(good)/2], []string{"not a valid module"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := rt.Load(t.Context(), c.name, c.wasm, guest.ModuleOptions{Slots: 1})
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
	whole := bytes.LastIndex(good, []byte{11, 20, 1, 0, 0x41}) // Without its last section it is a module.
	for n := range good {
		m, err := rt.Load(t.Context(), "prefix", good[:n], guest.ModuleOptions{Slots: 1})
		if n != whole {
			require.Error(t, err, "%d bytes", n)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, m.Close(t.Context()))
	}
}

// TestContained asks a guest to misbehave. The answer is an error, and the next
// decision of this module and of another one are right.
func TestContained(t *testing.T) {
	bad, good := load(t, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1, MaxFailures: -1})), load(t, "good", guest.ModuleOptions{Slots: 1})
	for port, want := range map[uint16]string{
		10: "fuel", 11: "call depth", 12: "unreachable", 13: "fuel", 14: "fuel", 15: "fuel", 16: "fuel", 17: "fuel",
		18: "too many calls", 19: "proc_exit", 20: "response does not", 21: "no answer", 22: "pend", 23: "guest error",
		24: "unknown action 6", 25: "IP version 5", 26: "outside", 27: "outside", 28: "limit", 29: "limit", 30: "UTF-8", 31: "outside",
		32: "unknown flags 0x10", 33: "says port 1, the response 0", 34: "record of 1 bytes, the response 0", 35: "flags 0x1, the response 0x0",
	} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			before := bad.Stats().Replaced
			v, err := ask(bad, call(port))
			var trap *guest.TrapError
			require.ErrorAs(t, err, &trap)
			assert.Equal(t, "bad", trap.Module)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), "\n")
			assert.Equal(t, fwps.Verdict{Action: fwp.ActionContinue}, *v)
			assert.Equal(t, before+1, bad.Stats().Replaced)
			for _, m := range []*guest.Module{bad, good} {
				v, err := ask(m, call(1))
				require.NoError(t, err)
				assert.Equal(t, fwp.ActionPermit, v.Action)
			}
			runtime.GC()
		})
	}
}

// TestCollect shows that a looping guest does not hold up the collector: if it loops
// long enough, there are collections meanwhile.
func TestCollect(t *testing.T) {
	slices := 1 << 15
	for collections(t, slices) <= 2 { // It would be two, one on each side, of a guest that does, however long it loops.
		slices *= 2
		require.LessOrEqual(t, slices, 1<<22)
	}
}

// collections are those while a guest loops until its fuel has run out.
func collections(t *testing.T, slices int) (n int) {
	m := load(t, "bad", guest.ModuleOptions{Slots: 1, FuelSlices: slices})
	done := make(chan error, 1)
	go func() {
		_, err := ask(m, call(10))
		done <- err
	}()
	for {
		select {
		case err := <-done:
			require.ErrorContains(t, err, "fuel")
			return n
		default:
			runtime.GC()
			n++
		}
	}
}

func TestConcurrent(t *testing.T) {
	m := load(t, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 2, Spares: 2, MaxFailures: -1}))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for k := range 400 {
				port := uint16(1)
				if g == 0 && k%20 == 0 {
					port = 12
				}
				v, err := ask(m, call(port))
				if port == 12 {
					assert.Error(t, err)
				} else if assert.NoError(t, err) {
					assert.Equal(t, fwp.ActionPermit, v.Action)
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, uint64(20), m.Stats().Replaced)
}

func TestClosed(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	require.NoError(t, m.Close(t.Context()))
	_, err := ask(m, call(1))
	assert.ErrorContains(t, err, "closed")
}
