package ale_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// AMB-19: nobody can ask for the record of a connection that was not accepted once the
// enforcer is closed, but whoever has a flow still can.
func TestCloseGivesBackWhatNobodyAccepted(t *testing.T) {
	e, store, _ := enforcer(redirecting())
	f, err := e.Connect(t.Context(), app())
	require.NoError(t, err)
	got, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	for port := range uint16(3) {
		a := app()
		a.local = netip.AddrPortFrom(client.Addr(), 50000+port)
		unaccepted, err := e.Connect(t.Context(), a)
		require.NoError(t, err)
		unaccepted.Detach()
	}
	s := e.NewSocket(datagrams())
	_, _, _, err = s.SendTo(t.Context(), origin)
	require.NoError(t, err)
	s.Close()
	require.Equal(t, 5, store.Len())

	e.Close()
	e.Close()
	require.Equal(t, 1, store.Len(), "of the connection that has its flows")
	f.Close()
	sealed, err := e.Seal(got.Records)
	require.NoError(t, err)
	rs, err := e.Open(sealed)
	require.NoError(t, err)
	require.Equal(t, "ctx", string(rs.Last().Context))
	got.Close()
	require.Equal(t, 1, store.Len())
	e.Release(rs)
	require.Zero(t, store.Len())
}

// What is under way when the enforcer is closed leaves nothing: neither who accepts waits
// for it, nor is its record kept for him.
func TestCloseWhileAConnectIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, store, _ := enforcer(redirecting())
		release, connected := make(chan struct{}), make(chan *ale.Flow, 1)
		a := app()
		a.connect = func(netip.AddrPort) error { <-release; return nil }
		go func() {
			f, err := e.Connect(context.Background(), a)
			if err != nil {
				t.Error(err)
			}
			connected <- f
		}()
		synctest.Wait()
		ended := make(chan error, 1)
		go func() {
			_, err := e.Accept(context.Background(), accepted())
			ended <- err
		}()
		synctest.Wait() // It waits.
		e.Close()
		synctest.Wait()
		require.Len(t, ended, 1, "it waits no longer")
		require.ErrorIs(t, <-ended, ale.ErrClosed, "and is not taken for one that was not redirected")
		close(release)
		f := <-connected
		require.Equal(t, 1, store.Len())
		f.Close()
		require.Zero(t, store.Len())
	})
}

// Nothing is let go by an enforcer that is closed, and no layer is asked.
func TestNothingIsLetGoByAClosedEnforcer(t *testing.T) {
	p := redirecting()
	e, store, _ := enforcer(p)
	for way := range goes(nil, nil) {
		s := socketOf(e, way)
		defer s.Close()
		e.Close()
		err := goes(s, func() { t.Error(way, "went on") })[way](t.Context())
		require.ErrorIs(t, err, ale.ErrClosed, way)
		require.ErrorIs(t, err, ntstatus.DeviceNotReady, way)
	}
	_, err := e.Connect(t.Context(), app())
	require.ErrorIs(t, err, ale.ErrClosed)
	_, err = e.NewCarrier().Connect(t.Context(), app().in, nil, func(context.Context, ale.Target) (netip.AddrPort, error) {
		t.Error("went on")
		return client, nil
	})
	require.ErrorIs(t, err, ale.ErrClosed)
	_, err = e.Accept(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: proxy, Remote: client})
	require.ErrorIs(t, err, ale.ErrClosed)
	require.Empty(t, p.seen)
	require.Zero(t, store.Len())
}
