package ale

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// crowd is a rendezvous at which n redirects to one target are under way, and as
// many accepts wait for them. What each of these got comes by its channel.
func crowd(n int, done <-chan struct{}) (r *rendezvous, keys []key, got []chan redirect.Records) {
	r = newRendezvous(nil)
	target := netip.MustParseAddrPort("127.0.0.1:9000")
	for i := range n {
		k := key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), uint16(40000+i)), target}
		c := make(chan redirect.Records, 1)
		keys, got = append(keys, k), append(got, c)
		r.begin(target)
		go func() { c <- r.take(k, done) }()
	}
	synctest.Wait()
	return r, keys, got
}

// Each accept is woken by its own connect: with many that wait, to wake them all
// each time costs more than the connections do.
func TestAConnectWakesItsAcceptAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, keys, got := crowd(3, nil)
		require.Len(t, r.waiting, 3)
		other := r.waiting[keys[0]]
		records := redirect.Records{new(redirect.Hop)}
		r.finish(keys[1], records, time.Now())
		require.Equal(t, records, <-got[1])
		synctest.Wait()
		require.Len(t, r.waiting, 2)
		require.Equal(t, other, r.waiting[keys[0]], "it was not woken")

		r.abandon(keys[2].target)
		synctest.Wait()
		require.Len(t, r.waiting, 2, "a redirect is still under way")
		r.abandon(keys[2].target)
		require.Nil(t, <-got[0], "none is: these were not redirected")
		require.Nil(t, <-got[2])
		require.Empty(t, r.waiting)
		require.Empty(t, r.inflight)
	})
}

func TestAnAcceptThatGivesUpLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, _, got := crowd(2, ctx.Done())
		cancel()
		require.Nil(t, <-got[0])
		require.Nil(t, <-got[1])
		require.Empty(t, r.waiting)

		r, keys, got := crowd(1, nil)
		again := make(chan redirect.Records, 1)
		time.Sleep(acceptWait / 2)
		go func() { again <- r.take(keys[0], nil) }() // The same one, later.
		require.Nil(t, <-got[0], "after its two seconds")
		records := redirect.Records{new(redirect.Hop)}
		r.finish(keys[0], records, time.Now())
		require.Equal(t, records, <-again)
		require.Empty(t, r.waiting)
	})
}
