package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/policytrace"
)

// A program that is refused without end does not fill the log; how often it was is told, and
// the events have each.
func TestRefusalsFillNoLog(t *testing.T) {
	p, err := describe(t.Context(), quickstart, newTracer(new(strings.Builder), false, false))
	require.NoError(t, err)
	defer p.Close()
	const refusals = 100
	for name, c := range map[string]struct {
		json, all bool
		logger    bool
		lines     int
		left      string
	}{
		"text":   {lines: 21, left: "calloutd: 80 more are not printed: blocked by filter"},
		"daemon": {logger: true, lines: 21, left: "left_out=80"},
		"json":   {json: true, lines: refusals},
		"trace":  {all: true, lines: refusals},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out, events strings.Builder
				tr := newTracer(&out, c.json, c.all)
				if c.logger {
					tr.logger = slog.New(slog.NewTextHandler(&out, nil))
				}
				tr.log = policytrace.NewLog(&events)
				tr.policy.Store(p)
				for range refusals {
					tr.blocked(&ale.BlockedError{Layer: fwpm.LayerALEAuthConnectV4, Filter: 1, Remote: netip.MustParseAddrPort("198.51.100.7:80"), Why: "no"}, netip.AddrPort{})
				}
				tr.end()
				require.Equal(t, c.lines, strings.Count(out.String(), "\n"))
				require.Contains(t, out.String(), c.left)
				require.Equal(t, refusals, strings.Count(events.String(), "\n"))
				require.NotContains(t, events.String(), "left_out")

				if c.left != "" {
					time.Sleep(loglimit.Every)
					tr.blocked(&ale.BlockedError{Layer: fwpm.LayerALEAuthConnectV4, Filter: 1, Why: "no"}, netip.AddrPort{})
					tr.denied("/bin/other", 7, netip.AddrPort{}, errors.New("no filter's"))
					require.Equal(t, c.lines+2, strings.Count(out.String(), "\n"), "there is room again, and for others always")
				}
			})
		})
	}
}

// Of a redirect that went well nothing is put into words when nobody reads them: the
// program waits meanwhile. One that failed is told to everybody.
func TestARedirectThatNobodyReadsOfIsNotToldOf(t *testing.T) {
	p, err := describe(t.Context(), quickstart, newTracer(new(strings.Builder), false, false))
	require.NoError(t, err)
	defer p.Close()
	var out strings.Builder
	tr := newTracer(&out, false, false)
	tr.policy.Store(p)
	ev := ale.RedirectEvent{Layer: fwpm.LayerALEConnectRedirectV4, Applied: true, Filter: 1, Callout: "proxy-redirect", ProcessID: 42, AppID: "/usr/bin/curl",
		Original: netip.MustParseAddrPort("198.51.100.7:80"), Target: netip.MustParseAddrPort("127.0.0.1:8080")}
	require.Zero(t, testing.AllocsPerRun(100, func() { tr.redirect(ev) }))
	require.Empty(t, out.String())

	var events strings.Builder
	tr.log = policytrace.NewLog(&events)
	tr.redirect(ev)
	require.Contains(t, events.String(), `"event":"redirect"`)
	require.Empty(t, out.String())

	tr.log = nil
	ev.Err = errors.New("connection refused")
	tr.redirect(ev)
	require.Contains(t, out.String(), "where: connection refused")
}
