//go:build linux

package nftgateway

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
)

// What is undecided goes through from when somebody takes all rules of the system away until they
// are there again, which is a matter of milliseconds, if no guard covers it. With -v it says of how many.
func TestRulesAreBackInMilliseconds(t *testing.T) {
	router(t, func(n *network) {
		var sink *net.UDPConn
		n.at(n.outside, func() {
			var err error
			sink, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 1, 2)})
			require.NoError(t, err)
		})
		var first, last, through atomic.Int64 // Unix nanoseconds, and datagrams
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			for b := make([]byte, 64); ; {
				if _, err := sink.Read(b); err != nil {
					return
				}
				now := time.Now().UnixNano()
				first.CompareAndSwap(0, now)
				last.Store(now)
				through.Add(1)
			}
		}()
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll()}) // Without Transparent all datagrams are refused.
		require.NoError(t, err)
		defer g.Close()
		g.withoutGuard(t)
		stop, sent := make(chan struct{}), make(chan struct{})
		c, err := n.dial(n.inside, "udp4", sink.LocalAddr().String())
		require.NoError(t, err)
		go func() {
			defer close(sent)
			for tick := time.Tick(50 * time.Microsecond); ; {
				select {
				case <-stop:
					return
				case <-tick:
					_, _ = c.Write([]byte("undecided")) // It may have heard that the one before was refused.
				}
			}
		}()
		defer func() { close(stop); <-sent; c.Close(); sink.Close(); <-heard }()
		rules, err := nftables.New(nftables.AsLasting())
		require.NoError(t, err)
		defer func() { require.NoError(t, rules.CloseLasting()) }()
		var windows []time.Duration
		for range 30 {
			first.Store(0)
			rules.FlushRuleset()
			require.NoError(t, rules.Flush())
			time.Sleep(200 * time.Millisecond) // To look whether they are there would keep the gateway from it.
			if at := first.Load(); at != 0 {
				windows = append(windows, time.Duration(last.Load()-at))
			}
		}
		require.NotEmpty(t, windows, "nothing is measured")
		slices.Sort(windows)
		t.Logf("undecided goes through for %v in the middle, %v at most: %d datagrams", windows[len(windows)/2], windows[len(windows)-1], through.Load())
		require.Less(t, windows[len(windows)/2], 500*time.Millisecond)
		require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		require.Eventually(t, func() bool { // What came before may not be read yet.
			before := through.Load()
			time.Sleep(100 * time.Millisecond)
			return through.Load() == before
		}, waitTime, pollTime, "with the rules nothing goes through")
	})
}
