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
func crowd(n int, done <-chan struct{}) (r *rendezvous, keys []key, tickets []uint64, got []chan redirect.Records) {
	r = newRendezvous(nil, time.Now)
	target := netip.MustParseAddrPort("127.0.0.1:9000")
	for i := range n {
		k := key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), uint16(40000+i)), target}
		c := make(chan redirect.Records, 1)
		keys, got = append(keys, k), append(got, c)
		tickets = append(tickets, r.begin(target))
		go func() { c <- r.take(k, done) }()
	}
	synctest.Wait()
	return r, keys, tickets, got
}

// Each accept is woken by its own connect: with many that wait, to wake them all
// each time costs more than the connections do.
func TestAConnectWakesItsAcceptAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, keys, tickets, got := crowd(3, nil)
		require.Len(t, r.waiting, 3)
		other := r.waiting[keys[0]]
		records := redirect.Records{new(redirect.Hop)}
		r.finish(keys[1], tickets[1], records)
		require.Equal(t, records, <-got[1])
		synctest.Wait()
		require.Len(t, r.waiting, 2)
		require.Equal(t, other, r.waiting[keys[0]], "it was not woken")

		r.abandon(keys[2].target, tickets[2])
		synctest.Wait()
		require.Len(t, r.waiting, 2, "a redirect is still under way")
		r.abandon(keys[0].target, tickets[0])
		require.Nil(t, <-got[0], "none is: these were not redirected")
		require.Nil(t, <-got[2])
		require.Empty(t, r.waiting)
		require.Empty(t, r.flights)
	})
}

// It is the one that is woken whose wait ends, of all that came at the same time.
func TestOthersThatCameAtTheSameTimeWaitOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, keys, tickets, _ := crowd(1, nil)
		second := r.begin(keys[0].target)
		got := map[key]chan redirect.Records{}
		for port := range uint16(3) {
			k := keys[0]
			k.client = netip.AddrPortFrom(k.target.Addr(), 50000+port)
			got[k] = make(chan redirect.Records, 1)
			go func() { got[k] <- r.take(k, nil) }()
			synctest.Wait()
		}
		first := keys[0]
		first.client = netip.AddrPortFrom(first.target.Addr(), 50000)
		r.finish(first, second, nil)
		begun := time.Now()
		r.abandon(first.target, tickets[0])
		for _, c := range got {
			<-c
		}
		require.Zero(t, time.Since(begun))
		require.Empty(t, r.waiting)
	})
}

func TestAnAcceptThatGivesUpLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, _, _, got := crowd(2, ctx.Done())
		cancel()
		require.Nil(t, <-got[0])
		require.Nil(t, <-got[1])
		require.Empty(t, r.waiting)

		r, keys, tickets, got := crowd(1, nil)
		again := make(chan redirect.Records, 1)
		time.Sleep(acceptWait / 2)
		go func() { again <- r.take(keys[0], nil) }() // The same one, later.
		require.Nil(t, <-got[0], "after its two seconds")
		records := redirect.Records{new(redirect.Hop)}
		r.finish(keys[0], tickets[0], records)
		require.Equal(t, records, <-again)
		require.Empty(t, r.waiting)
	})
}

// An accept waits for those that began before it, in whatever order they end, and not
// for the others: where redirects never cease it would wait its two seconds each time.
func TestAnAcceptWaitsForNoRedirectThatBeganAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, keys, tickets, got := crowd(1, nil)
		target := keys[0].target
		stranger, twin := keys[0], make(chan redirect.Records, 1)
		stranger.client = netip.MustParseAddrPort("127.0.0.1:50001")
		other := make(chan redirect.Records, 1)
		go func() { other <- r.take(stranger, nil) }()
		synctest.Wait()
		second := r.begin(target)
		go func() { twin <- r.take(stranger, nil) }() // Another accept of the same, later.
		synctest.Wait()
		third, begun := r.begin(target), time.Now()
		require.Len(t, r.waiting, 2)
		r.abandon(target, tickets[0])
		require.Nil(t, <-other)
		require.Nil(t, <-got[0])
		synctest.Wait()
		require.Len(t, r.waiting, 1, "the later one waits for the second")
		r.abandon(target, second)
		require.Nil(t, <-twin)
		require.Empty(t, r.waiting)
		require.Zero(t, time.Since(begun))
		r.abandon(target, third)
		require.Empty(t, r.flights)
		require.Empty(t, r.spare[0].tickets)
		require.Empty(t, r.spare[0].waiters)
	})
}
