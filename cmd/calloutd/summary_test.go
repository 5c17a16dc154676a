package main

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/policytrace"
)

// What counts as what became of a connection, and what is only on the way there.
func TestSummaryRows(t *testing.T) {
	classify := func(layer string, e policytrace.Event) policytrace.Event {
		e.Event, e.Layer, e.Program, e.PID, e.Action = "classify", layer, "a", 7, "permit"
		return e
	}
	to := policytrace.Event{To: "192.0.2.1:80"}
	for _, c := range []struct {
		name string
		e    policytrace.Event
		want row
	}{
		{"permitted", classify("ALE_AUTH_CONNECT_V4", to), row{"a", "to", "192.0.2.1:80", "permitted", false}},
		{"IPv6", classify("ALE_AUTH_CONNECT_V6", policytrace.Event{To: "[2001:db8::1]:80"}), row{"a", "to", "[2001:db8::1]:80", "permitted", false}},
		{"redirected", classify("ALE_AUTH_CONNECT_V4", policytrace.Event{To: "127.0.0.1:1", Proxy: "p", Original: "192.0.2.1:80"}),
			row{"a", "to", "192.0.2.1:80", "redirected to 127.0.0.1:1 (proxy p)", false}},
		{"accepted", classify("ALE_AUTH_RECV_ACCEPT_V4", policytrace.Event{From: "192.0.2.1:4711", To: "127.0.0.1:80"}),
			row{"a", "from", "192.0.2.1", "permitted at 127.0.0.1:80", false}},
		{"listens", classify("ALE_AUTH_LISTEN_V4", policytrace.Event{From: "0.0.0.0:80"}), row{"a", "listens at", "0.0.0.0:80", "permitted", false}},
		{"blocked", policytrace.Event{Event: "blocked", Program: "a", To: "192.0.2.1:80", Why: "no"}, row{"a", "to", "192.0.2.1:80", "blocked: no", true}},
		{"bind blocked", policytrace.Event{Event: "blocked", Program: "a", From: "0.0.0.0:80", Why: "no"}, row{"a", "at", "0.0.0.0:80", "blocked: no", true}},
		{"not seen", policytrace.Event{Event: "blocked", PID: 7, Why: "no"}, row{"", "at", "an address that is not known", "blocked: no", true}},
		{"not accepted", policytrace.Event{Event: "blocked", Program: "a", From: "192.0.2.1:4711", Inbound: true, Why: "no"}, row{"a", "from", "192.0.2.1", "blocked: no", true}},
	} {
		got, n := rowOf(c.e)
		require.Equal(t, 1, n, c.name)
		require.Equal(t, c.want, got, c.name)
	}
	for name, e := range map[string]policytrace.Event{
		"ALE-LAY-12 asked again": classify("ALE_AUTH_CONNECT_V4", policytrace.Event{To: "192.0.2.1:80", Flags: []string{"IS_REAUTHORIZE"}}),
		"ALE-LAY-14 asked twice": classify("ALE_AUTH_CONNECT_V4", policytrace.Event{To: "192.0.2.1:80", Flags: []string{"IS_HONORING_POLICY_AUTHORIZE"}}),
		"another layer":          classify("ALE_CONNECT_REDIRECT_V4", to),
		"block":                  {Event: "classify", Layer: "ALE_AUTH_CONNECT_V4", Action: "block"},
		"log":                    {Event: "log"},
	} {
		_, n := rowOf(e)
		require.Zero(t, n, name)
	}
}

func TestSummaryIsBounded(t *testing.T) {
	s := &summary{own: 1}
	for i := range maxRows + 5 {
		s.add(policytrace.Event{Event: "blocked", PID: 2, To: fmt.Sprintf("peer %d", i)})
	}
	s.add(policytrace.Event{Event: "blocked", PID: 1, To: "what a proxy does"})
	require.Len(t, s.rows, maxRows)
	require.Equal(t, 5, s.more)
	var out bytes.Buffer
	s.print(newTracer(&out, false, false))
	require.Contains(t, out.String(), fmt.Sprintf("calloutd: %s by 1 program, %s refused\n", connections(maxRows+5), count(maxRows)))
	require.Contains(t, out.String(), "\n      5 others, not told apart\n")
}

// Datagrams that got lost have a row for each reason, and a line of the status.
func TestLostDatagramsAreShown(t *testing.T) {
	n := map[string]uint64{enforce.LostForMemory: 3, enforce.LostForQueue: 0, enforce.LostForFlows: 1}
	var out bytes.Buffer
	s := &summary{}
	s.lose(n)
	s.print(newTracer(&out, false, false))
	require.Contains(t, out.String(), "\n      1 datagrams lost: flows\n      3 datagrams lost: memory\n")
	require.NotContains(t, out.String(), "queue")
	out.Reset()
	require.NoError(t, printStatus(&out, control.Status{Datagrams: &enforce.DatagramStats{Flows: 7, Bytes: 4096, Lost: n}}))
	require.Regexp(t, `(?m)^datagrams +7 flows, 4096 bytes wait, 1 lost: flows, 3 lost: memory$`, out.String())
}

// EVENTS.md names every key of an event.
func TestEventsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("EVENTS.md")
	require.NoError(t, err)
	for _, of := range []any{policytrace.Event{}, policytrace.Step{}, summaryTotal{}, summaryRow{}} {
		for f := range reflect.TypeOf(of).Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.Contains(t, string(text), "`"+key+"`", "of %T", of)
		}
	}
}
