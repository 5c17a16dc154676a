package ale_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// What the host refuses of a redirect names the layer, the filter and the callout that
// asked for it: who reads the error has something to change.
func TestWhatIsRefusedOfARedirectNamesWhoAskedForIt(t *testing.T) {
	moves := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To = fwp.ActionPermit, true, client
		return nil
	})
	long := app().in
	for range redirect.MaxHops {
		long.Records = long.Records.With(&redirect.Hop{Handle: 99})
	}
	for _, c := range []struct {
		name  string
		layer fwpm.LayerID
		asks  fwps.Callout
		store redirect.Store
		in    fwps.Incoming
		want  string
	}{
		{"no room for the record", fwpm.LayerALEConnectRedirectV4, toProxy, full{memstore.New(0)}, app().in,
			`/bin/app[42] to 198.51.100.7:80 blocked at ALE_CONNECT_REDIRECT_V4 by filter 1 "f", callout "c" (RED-SIO-03): the redirect record was not kept: redirect: the record store is full`},
		{"a proxy loop", fwpm.LayerALEConnectRedirectV4, toProxy, memstore.New(0), long,
			`/bin/app[42] to 198.51.100.7:80 blocked at ALE_CONNECT_REDIRECT_V4 by filter 1 "f", callout "c" (AMB-16): the connection was redirected 16 times already: a proxy loop`},
		{"a bind that cannot be", fwpm.LayerALEBindRedirectV4, moves, memstore.New(0), app().in,
			`/bin/app[42] to 198.51.100.7:80 blocked at ALE_BIND_REDIRECT_V4 by filter 1 "f", callout "c" (BR-01): the system alone binds this socket, and chooses where`},
	} {
		e := ale.New(ale.Options{Classifier: engine(t, nil, c.asks, c.layer), Store: c.store})
		s := e.NewSocket(c.in)
		_, err := s.Connect(t.Context(), origin, fromClient)
		var blocked *ale.BlockedError
		require.ErrorAs(t, err, &blocked, c.name)
		require.EqualError(t, err, c.want, c.name)
		s.Close()
		require.Zero(t, e.LiveHops(), c.name)
	}
}
