package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/policytrace"
)

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
