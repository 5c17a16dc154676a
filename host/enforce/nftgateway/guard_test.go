//go:build linux

package nftgateway

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

// withoutGuard lets the guard of a gateway cover nothing.
func (g *Gateway) withoutGuard(t *testing.T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	require.NoError(t, g.guard.cover(new(site)))
}

// trickle sends from outside, to one, without end.
func (n *network) trickle() string {
	var l net.Listener
	n.at(n.outside, func() {
		var err error
		l, err = net.Listen("tcp4", "198.18.1.2:0")
		require.NoError(n.t, err)
	})
	n.t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		for err == nil {
			time.Sleep(time.Millisecond)
			_, err = c.Write([]byte{1})
		}
	}()
	return l.Addr().String()
}

// However often somebody takes all rules of the system away while those behind it connect and
// send as fast as they can: nothing reaches outside but what the gateway carries.
func TestNothingGoesThroughWhileTheRulesAreAway(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		const flushes = 200
		var undecided, carried atomic.Int64
		count := func(from net.Addr) {
			if strings.HasPrefix(from.String(), "198.18.0.") || strings.HasPrefix(from.String(), "[2001:db8:18:0:") {
				undecided.Add(1)
			} else {
				carried.Add(1)
			}
		}
		var listening sync.WaitGroup
		defer listening.Wait()
		var ends []string
		for _, at := range []string{"198.18.1.2:0", "[2001:db8:18:1::2]:0"} {
			var l net.Listener
			var sink *net.UDPConn
			n.at(n.outside, func() {
				var err error
				l, err = net.Listen("tcp", at)
				require.NoError(t, err)
				sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr().(*net.TCPAddr).AddrPort()))
				require.NoError(t, err)
			})
			defer l.Close()
			defer sink.Close()
			ends = append(ends, l.Addr().String())
			listening.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					count(c.RemoteAddr())
					c.Close()
				}
			})
			listening.Go(func() {
				for b := make([]byte, 64); ; {
					_, from, err := sink.ReadFromUDP(b)
					if err != nil {
						return
					}
					count(from)
				}
			})
		}
		var mu sync.Mutex
		var told []string
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf(format, args...))
		}})
		require.NoError(t, err)
		defer g.Close()
		stop := make(chan struct{})
		var clients sync.WaitGroup
		defer clients.Wait()
		defer close(stop)
		for _, end := range ends {
			for _, network := range []string{"tcp", "udp"} {
				clients.Go(func() {
					n.at(n.inside, func() {
						d := net.Dialer{Timeout: 50 * time.Millisecond}
						for {
							select {
							case <-stop:
								return
							default:
							}
							if c, err := d.Dial(network, end); err == nil {
								_, _ = c.Write([]byte("x")) // It may be refused.
								c.Close()
							}
						}
					})
				})
			}
		}
		steady, err := n.dial(n.inside, "tcp4", n.trickle())
		require.NoError(t, err)
		defer steady.Close()
		var heard atomic.Int64
		go func() {
			for b := make([]byte, 256); ; {
				k, err := steady.Read(b)
				if heard.Add(int64(k)); err != nil {
					return
				}
			}
		}()
		rules, err := nftables.New(nftables.AsLasting())
		require.NoError(t, err)
		defer func() { require.NoError(t, rules.CloseLasting()) }()
		for i := range flushes {
			if i%2 == 0 {
				rules.FlushRuleset()
				require.NoError(t, rules.Flush())
			} else { // Packets are known while the rules are away, too.
				n.track()
				require.NoError(t, uninstall(&g.opts))
			}
			time.Sleep(20 * time.Millisecond)
		}
		require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		require.Zero(t, undecided.Load())
		require.NotZero(t, carried.Load())
		then := heard.Load()
		require.Eventually(t, func() bool { return heard.Load() > then }, waitTime, pollTime, "what is carried goes on")
		var dropped uint64
		mu.Lock()
		defer mu.Unlock()
		for _, s := range told {
			var n uint64
			if _, after, ok := strings.Cut(s, "they are there again, and "); ok {
				_, err := fmt.Sscanf(after, "%d packets that came in meanwhile were dropped", &n)
				require.NoError(t, err, s)
			}
			dropped += n
		}
		require.NotZero(t, dropped, "the rules were away for nobody")
		t.Logf("%d carried, %d packets dropped while the rules were away", carried.Load(), dropped)
	})
}

// A guard lets go on what the rules do: answers of who is inside, and what is not of the interfaces.
// It looks at an interface by its name and by its number, as the rules do.
func TestGuardCoversWhatTheRulesDo(t *testing.T) {
	router(t, func(n *network) {
		n.track()
		inside := n.serveIn(n.inside, "tcp4", "198.18.0.2:0", "inside")
		outside := n.serve("outside")
		in := n.link("in")
		number := uint32(in.Attrs().Index)
		for _, c := range []struct {
			of     site
			passes bool
		}{
			{site{}, true},
			{site{names: []string{"inn", "i"}, numbers: []uint32{number + 1000}}, true},
			{site{names: []string{"in"}}, false},
			{site{numbers: []uint32{number}}, false},
		} {
			g, err := newGuard(new(Options), &site{names: []string{"in"}, numbers: []uint32{number}})
			require.NoError(t, err)
			require.NoError(t, g.cover(&c.of))
			got, err := get(n.dial(n.outside, "tcp4", inside))
			require.NoError(t, err)
			require.Equal(t, "inside", got)
			wait := 200 * time.Millisecond
			if c.passes {
				wait = waitTime
			}
			n.at(n.inside, func() {
				_, err = get((&net.Dialer{Timeout: wait}).Dial("tcp4", outside))
			})
			require.Equal(t, c.passes, err == nil, "%+v: %v", c.of, err)
			require.Equal(t, c.passes, g.dropped() == 0)
			require.NoError(t, g.close())
		}
	})
}

// A gateway follows its interfaces with its guard, too.
func TestGuardFollowsInterfaces(t *testing.T) {
	router(t, func(n *network) {
		outside := n.serve("outside")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		n.bridge() // What comes in is of the bridge now.
		require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.site.names) > 1 && g.inForce() }, waitTime, pollTime)
		g.mu.Lock() // The rules are not put back.
		defer g.mu.Unlock()
		require.NoError(t, uninstall(&g.opts))
		n.at(n.inside, func() {
			_, err = get((&net.Dialer{Timeout: 200 * time.Millisecond}).Dial("tcp4", outside))
		})
		require.Error(t, err)
		require.NotZero(t, g.guard.dropped())
		require.NoError(t, netlink.LinkSetNoMaster(n.link("in")))
	})
}
