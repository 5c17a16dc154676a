package ale_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// redirecting is an enforcer that redirects everything to the proxy.
func redirecting() *policy {
	return &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
}

// hangs is a connect to the proxy that lasts until release is closed.
func hangs(t *testing.T, e *ale.Enforcer, release <-chan struct{}) (ended <-chan struct{}) {
	begun, done := make(chan struct{}), make(chan struct{})
	a := app()
	a.connect = func(netip.AddrPort) error {
		close(begun)
		<-release
		return nil
	}
	go func() {
		defer close(done)
		if _, err := e.Connect(context.Background(), a); err != nil {
			t.Error(err)
		}
	}()
	<-begun
	return done
}

func stranger() fwps.Incoming {
	in := accepted()
	in.Remote = netip.MustParseAddrPort("127.0.0.1:50001")
	return in
}

// The record is there however late connect returns.
func TestAcceptWaitsForTheConnectThatItBelongsTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		release := make(chan struct{})
		ended := hangs(t, e, release)
		got := make(chan *ale.Flow, 1)
		go func() {
			f, err := e.Accept(context.Background(), accepted())
			if err != nil {
				t.Error(err)
			}
			got <- f
		}()
		synctest.Wait() // The accept came first, and waits.
		close(release)
		require.Equal(t, origin, (<-got).Original)
		<-ended
	})
}

// A connect that hangs holds strangers up for two seconds and no longer.
func TestAcceptDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		release := make(chan struct{})
		ended := hangs(t, e, release)
		begun := time.Now()
		f, err := e.Accept(t.Context(), stranger())
		require.NoError(t, err)
		require.Empty(t, f.Records)
		require.Equal(t, 2*time.Second, time.Since(begun))
		close(release)
		<-ended
	})
}

func TestAcceptWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		release := make(chan struct{})
		ended := hangs(t, e, release)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := e.Accept(ctx, stranger())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, time.Since(begun))
		close(release)
		<-ended
	})
}

// Who is accepted while no redirect to his address is under way waits for nothing.
func TestAcceptOfADirectConnectionDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		release := make(chan struct{})
		ended := hangs(t, e, release)
		in := stranger()
		in.Local = netip.MustParseAddrPort("127.0.0.1:9090")
		begun := time.Now()
		f, err := e.Accept(t.Context(), in)
		require.NoError(t, err)
		require.Empty(t, f.Records)
		require.Zero(t, time.Since(begun))
		close(release)
		<-ended
	})
}

// A connection that nobody accepts gives its record back: when its port is used
// again, or after two minutes.
func TestRecordsThatNobodyAcceptsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, store, _ := enforcer(redirecting())
		connect := func() {
			f, err := e.Connect(t.Context(), app())
			require.NoError(t, err)
			f.Close()
		}
		connect()
		require.Equal(t, 1, store.Len())
		connect()
		require.Equal(t, 1, store.Len(), "the same port again")
		time.Sleep(2 * time.Minute)
		a := app()
		a.connect = func(netip.AddrPort) error { return ale.ErrInProgress }
		a.local = netip.MustParseAddrPort("127.0.0.1:40002")
		f, err := e.Connect(t.Context(), a)
		require.ErrorIs(t, err, ale.ErrInProgress)
		f.Detach()
		require.Equal(t, 1, store.Len(), "only the new one")
		got, err := e.Accept(t.Context(), accepted())
		require.NoError(t, err)
		require.Empty(t, got.Records, "the old one is gone")
	})
}

// What nobody accepted for so long is nobody's, also where no other redirect came: not
// that of who connects to the proxy by himself from a port that was used again.
func TestAStrangerDoesNotGetARecordThatWasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		f, err := e.Connect(t.Context(), app())
		require.NoError(t, err)
		f.Close()
		time.Sleep(2 * time.Minute)
		got, err := e.Accept(t.Context(), accepted())
		require.NoError(t, err)
		require.Empty(t, got.Records)
		require.False(t, got.Redirected)
	})
}

// A redirected connect that failed is under way no longer: nobody who comes to the same
// address waits for it.
func TestNobodyWaitsForAConnectThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := enforcer(redirecting())
		a := app()
		a.connect = func(netip.AddrPort) error { return context.DeadlineExceeded }
		_, err := e.Connect(t.Context(), a)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		begun := time.Now()
		f, err := e.Accept(t.Context(), accepted())
		require.NoError(t, err)
		require.Empty(t, f.Records)
		require.Zero(t, time.Since(begun))
	})
}
