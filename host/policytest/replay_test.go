package policytest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/recorder"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// recorded takes connections through a world and keeps their entries. A redirected
// one is accepted, and the proxy connects with its records.
func recorded(t *testing.T, w *policytest.World, lines ...string) (entries []*flight.Entry) {
	t.Helper()
	rec := recorder.New(recorder.Options{Classifier: w.Classifier, Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
		Write: func(e *flight.Entry) error { entries = append(entries, e); return nil },
		Proxy: func(a netip.AddrPort) string {
			if a == w.Proxies["local"] {
				return "local"
			}
			return ""
		}})
	e := ale.New(ale.Options{Classifier: rec, Store: memstore.New(0)})
	for _, line := range lines {
		_, f, err := policytest.Connect(t.Context(), e, connection(t, line))
		var b *ale.BlockedError
		if errors.As(err, &b) {
			continue
		}
		require.NoError(t, err)
		defer f.Close()
		if !f.Redirected {
			continue
		}
		acc, err := policytest.Arrive(t.Context(), e, f, fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/proxy", ProcessID: 1})
		require.NoError(t, err)
		defer acc.Close()
		_, again, err := policytest.Connect(t.Context(), e, fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/proxy", ProcessID: 1, Remote: f.Original, Records: acc.Records})
		require.NoError(t, err)
		defer again.Close()
	}
	return entries
}

// through writes entries to a flight file and reads them.
func through(t *testing.T, entries []*flight.Entry) (out []*flight.Entry) {
	t.Helper()
	var b closing
	w := flight.NewWriter(&b, flight.Header{})
	for _, e := range entries {
		require.NoError(t, w.Write(e))
	}
	require.NoError(t, w.Close())
	r := flight.NewReader(&b)
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, e)
	}
}

type closing struct{ bytes.Buffer }

func (*closing) Close() error { return nil }

func TestWhatIsRecordedIsDecidedAgainAsItWas(t *testing.T) {
	w := world(t)
	entries := recorded(t, w, "/curl 192.0.2.1:80", "/curl 192.0.2.1:25", "/curl 192.0.2.1:9", "/curl [2001:db8::1]:443", "/curl 192.0.2.1:53 udp",
		"/curl [::ffff:192.0.2.1]:9")
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.Outcome.Action)
	}
	require.Equal(t, []string{"redirect", "permit", "permit", "block", "permit", "permit", "permit", "permit"}, actions,
		"connection, accept and the proxy's own for each redirect")
	require.Equal(t, &flight.Outcome{Action: "redirect", Destination: "proxy:local", Layer: "ALE_CONNECT_REDIRECT_V4", Filter: 1, FilterName: "web to the proxy",
		Callout: "sends", Rule: entries[0].Outcome.Rule, Context: []byte("hello"), Record: []byte{1, 2}}, entries[0].Outcome)
	require.Len(t, entries[2].Records, 1, "the proxy's own connection has records")
	for i, e := range through(t, entries) {
		got, err := w.Replay(t.Context(), w.Record(), e)
		require.NoError(t, err)
		require.Equal(t, entries[i].Outcome, got, "%s", e.Remote)
	}
}

func TestRecordsOfAnotherRedirectorStaySo(t *testing.T) {
	w := world(t)
	e := &flight.Entry{Protocol: fwps.ProtocolTCP, Program: "/proxy", Remote: netip.MustParseAddrPort("192.0.2.1:80"), Time: time.Unix(1, 0),
		Records: redirect.Records{{Callout: "somebody else"}}}
	in := w.Incoming(e)
	state, _ := in.Records.State(w.Handles["sends"])
	require.Equal(t, redirect.RedirectedByOther, state)
	got, err := w.Replay(t.Context(), w.Record(), e)
	require.NoError(t, err)
	require.Equal(t, "redirect", got.Action)
}

// denials is a trace that has blocks only.
type denials struct {
	noTrace
	text string
}

func (d *denials) Blocked(b *ale.BlockedError) { d.text += fmt.Sprintf("%d blocked", b.Remote.Port()) }
func (d *denials) String() string              { return d.text }

func TestAComparisonOverRecordedConnectionsKeepsTheirOrder(t *testing.T) {
	before, _ := filters(t, "- {name: a, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 1-5000}]}\n")
	after, _ := filters(t, "- {name: a, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 1-100}]}\n")
	questions := func(yield func(policytest.Question, error) bool) {
		for p := range uint16(6000) {
			e := &flight.Entry{Protocol: fwps.ProtocolTCP, Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), p+1)}
			if !yield(policytest.Question{In: before.Incoming(e), Entry: e}, nil) {
				return
			}
		}
	}
	var ports []uint16
	before.NewTrace = func() policytest.Trace { return new(denials) }
	after.NewTrace = before.NewTrace
	compare := policytest.Compare(before, after)
	n, err := compare.Over(t.Context(), questions, func(c *policytest.Change) error {
		require.Equal(t, "block->permit", c.Kind())
		require.Empty(t, c.BeforeTrace, "nobody asked for it")
		ports = append(ports, c.In.Remote.Port())
		if len(ports)%1000 == 1 {
			require.NoError(t, compare.Explain(t.Context(), c))
			require.Equal(t, fmt.Sprintf("%d blocked", c.In.Remote.Port()), c.BeforeTrace)
			require.Empty(t, c.AfterTrace)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 6000, n)
	require.Len(t, ports, 4900)
	require.True(t, slices.IsSorted(ports))
}

func TestAComparisonEndsWithTheFirstError(t *testing.T) {
	w, _ := filters(t, layered)
	enough := errors.New("enough")
	questions := func(yield func(policytest.Question, error) bool) {
		_ = yield(policytest.Question{In: connection(t, "/curl 192.0.2.1:25")}, nil) && yield(policytest.Question{}, enough)
	}
	_, err := policytest.Compare(w, w).Over(t.Context(), questions, func(*policytest.Change) error { return nil })
	require.ErrorIs(t, err, enough)

	other, _ := filters(t, "- {name: a, layer: ALE_AUTH_CONNECT, action: block}\n")
	_, err = policytest.Compare(w, other).Over(t.Context(), policytest.Boundaries(w).Questions(5000), func(*policytest.Change) error { return enough })
	require.ErrorIs(t, err, enough)
}

// What an entry says of a connection is what the layers are asked about it, and whose its
// records are is told by the callouts that the policy has now.
func TestTheConnectionOfAnEntry(t *testing.T) {
	w := world(t)
	e := flight.Entry{Protocol: fwps.ProtocolTCP, Inbound: true, Program: "/bin/proxy", Process: 7, User: 12, UserKnown: true, Groups: []uint32{3, 4},
		Local: netip.MustParseAddrPort("192.0.2.9:1000"), Remote: netip.MustParseAddrPort("192.0.2.1:80"), Host: "www.example.org"}
	require.Equal(t, fwps.Incoming{Protocol: fwps.ProtocolTCP, Inbound: true, AppID: "/bin/proxy", ProcessID: 7, UserID: 12, UserKnown: true, Groups: []uint32{3, 4},
		Local: e.Local, Remote: e.Remote, Other: policytest.PeerNamed("www.example.org")}, w.Incoming(&e))
	e.Host = ""
	require.Nil(t, w.Incoming(&e).Other)
	mine, another := &redirect.Hop{Callout: "sends"}, &redirect.Hop{Callout: "of a VPN client"}
	for _, c := range []struct {
		records redirect.Records
		state   redirect.State
	}{
		{nil, redirect.NotRedirected},
		{redirect.Records{mine}, redirect.RedirectedBySelf},
		{redirect.Records{another}, redirect.RedirectedByOther},
		{redirect.Records{mine, another}, redirect.PreviouslyRedirectedBySelf},
		{redirect.Records{another, mine}, redirect.RedirectedBySelf},
	} {
		e.Records = c.records
		st, _ := w.Incoming(&e).Records.State(w.Handles["sends"])
		require.Equal(t, c.state, st)
	}
	require.Zero(t, mine.Handle, "the entry stays as it is")
}
