//go:build linux

package nftgateway

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/loglimit"
)

// One gateway of a name runs in a network, however it is looked for: another one is refused
// until the first has ended. Somebody without rights cannot have the name.
func TestOneGatewayOfAName(t *testing.T) {
	router(t, func(n *network) {
		squatter, err := net.Listen("unix", "@calloutd-gateway-calloutd") // Who may do that is anybody.
		require.NoError(t, err)
		defer squatter.Close()
		o := Options{Interfaces: []string{"in"}, ALE: permitAll(), Logf: t.Logf}
		first, err := Start(t.Context(), o)
		require.NoError(t, err)
		_, err = Start(t.Context(), o)
		require.EqualError(t, err, "nftgateway: another gateway with the table calloutd is running here; give this one another name")
		require.EqualError(t, Remove(""), err.Error())
		c, err := nftables.New()
		require.NoError(t, err)
		c.FlushRuleset() // It does not take the lock away.
		require.NoError(t, c.Flush())
		_, err = Start(t.Context(), o)
		require.ErrorContains(t, err, "another gateway")
		other := o
		other.Name, other.Interfaces = "other", []string{"out"}
		second, err := Start(t.Context(), other)
		require.NoError(t, err)
		require.NoError(t, second.Close())
		n.at(n.inside, func() { // Another network.
			lock, err := alone(&o)
			require.NoError(t, err)
			require.NoError(t, lock.Close())
		})
		require.NoError(t, first.Close())
		again, err := Start(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, again.Close())
	})
}

// An interface has one gateway: of two, the policy of one would not be asked, and the rules
// of both together can carry nothing.
func TestOneGatewayOfAnInterface(t *testing.T) {
	router(t, func(n *network) {
		first, second := Options{Interfaces: []string{"in"}, ALE: permitAll(), Name: "first"}, Options{Interfaces: []string{"out", "in"}, ALE: permitAll(), Transparent: true}
		const refused = "nftgateway: interface in is one of the gateway with the table calloutd_first: one gateway decides an interface; " +
			"if that one has died, calloutd gateway --remove with its --name"
		g, err := Start(t.Context(), first)
		require.NoError(t, err)
		_, err = Start(t.Context(), second)
		require.EqualError(t, err, refused)
		g.die(t)
		_, err = Start(t.Context(), second)
		require.EqualError(t, err, refused, "what it left refuses connections")
		require.NoError(t, Remove("first"))
		g, err = Start(t.Context(), second)
		require.NoError(t, err)
		require.NoError(t, g.Close())
	})
}

// Of two that start at once, each with a name of its own, one has an interface.
func TestOfTwoThatStartAtOnceOneHasAnInterface(t *testing.T) {
	router(t, func(n *network) {
		for range 30 {
			var wg sync.WaitGroup
			var run atomic.Int32
			var all [2]*Gateway
			for i, name := range []string{"a", "b"} {
				wg.Go(func() {
					g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, Name: name, ALE: permitAll(), Logf: t.Logf})
					if err == nil {
						run.Add(1)
						all[i] = g
						return
					}
					t.Log(err)
				})
			}
			wg.Wait()
			for _, g := range all {
				if g != nil {
					require.NoError(t, g.Close())
				}
			}
			require.EqualValues(t, 1, run.Load())
		}
	})
}

// One that is refused puts no rules in force, though it hears of changes until it is closed.
func TestWhatIsRefusedHasNoRules(t *testing.T) {
	router(t, func(n *network) {
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll()})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		late := &Gateway{opts: Options{Interfaces: []string{"in"}, Name: "late", Logf: t.Logf}, cancel: stop, log: loglimit.New(t.Logf)}
		late.lock, err = alone(&late.opts)
		require.NoError(t, err)
		require.ErrorContains(t, late.takeOver(ctx), "interface in is one of the gateway with the table calloutd:")
		require.True(t, late.follow())
		require.False(t, isThere("calloutd_late"))
		require.NoError(t, late.Close())
		require.NoError(t, g.Close())
	})
}
