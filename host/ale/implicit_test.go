package ale_test

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// ALE-LAY-06, ALE-LAY-07: a socket that many use at once is bound once, and its one
// RESOURCE_ASSIGNMENT is released once.
func TestASocketIsBoundImplicitlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(policy)
		e, _, _ := enforcer(p)
		s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP})
		release := make(chan struct{})
		var binds atomic.Int32
		s.OnImplicitBind(func(context.Context, netip.AddrPort) (netip.AddrPort, error) {
			binds.Add(1)
			<-release
			return client, nil
		})
		var wg sync.WaitGroup
		send := func(ctx context.Context, want error) {
			wg.Go(func() {
				_, _, _, err := s.SendTo(ctx, origin)
				require.ErrorIs(t, err, want)
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		send(t.Context(), nil)
		send(t.Context(), nil)
		send(ctx, context.Canceled)
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		s.Close()
		require.EqualValues(t, 1, binds.Load())
		asked := map[fwpm.LayerID]int{}
		for _, in := range p.seen {
			asked[in.Layer]++
		}
		require.Equal(t, 1, asked[fwpm.LayerALEResourceAssignmentV4])
		require.Equal(t, 1, asked[fwpm.LayerALEResourceReleaseV4])
	})
}

// A bind that failed is tried again by who waited for it.
func TestAnImplicitBindThatFailedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(new(policy))
		s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP})
		defer s.Close()
		release, got := make(chan error), make(chan error)
		s.OnImplicitBind(func(context.Context, netip.AddrPort) (netip.AddrPort, error) { return client, <-release })
		for range 2 {
			go func() {
				_, _, _, err := s.SendTo(t.Context(), origin)
				got <- err
			}()
		}
		synctest.Wait()
		release <- context.DeadlineExceeded
		require.ErrorIs(t, <-got, context.DeadlineExceeded)
		release <- nil
		require.NoError(t, <-got)
	})
}
