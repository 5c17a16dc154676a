//go:build linux

package nftgateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// What is connected before there are rules, which nobody decided, does not go on when
// there are: whether connection tracking knows it, as with a firewall, or not.
func TestWhatWasConnectedBeforeEnds(t *testing.T) {
	for name, tracked := range map[string]bool{"tracked": true, "untracked": false} {
		t.Run(name, func(t *testing.T) {
			both(t, func(n *network, transparent bool) {
				if tracked {
					n.track()
				}
				o := Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf}
				end := n.connected()
				g, err := Start(t.Context(), o)
				require.NoError(t, err)
				end()
				require.NoError(t, g.Close())
				end = n.connected() // As while it is started anew.
				g, err = Start(t.Context(), o)
				require.NoError(t, err)
				defer g.Close()
				end()
			})
		})
	}
}

// So does what is connected while its rules are gone.
func TestWhatWasConnectedWithoutTheRulesEnds(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		n.track()
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		g.withoutGuard(t)
		g.mu.Lock() // It sees nothing yet.
		require.NoError(t, uninstall(&g.opts))
		end := n.connected()
		g.mu.Unlock()
		require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		end()
	})
}

// both runs a test in either mode.
func both(t *testing.T, f func(n *network, transparent bool)) {
	for mode, transparent := range map[string]bool{"redirect": false, "transparent": true} {
		t.Run(mode, func(t *testing.T) {
			router(t, func(n *network) { n.t = t; f(n, transparent) })
		})
	}
}

// track has connection tracking know all that goes through the router, as a firewall does.
func (n *network) track() {
	c, err := nftables.New()
	require.NoError(n.t, err)
	table := c.AddTable(&nftables.Table{Name: "firewall", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{Name: "chain", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: established()})
	require.NoError(n.t, c.Flush())
}

// connected connects to outside, and returns what wants that to end at once, and nothing
// of it to be heard there.
func (n *network) connected() (end func()) {
	t := n.t
	var l net.Listener
	var heard *net.UDPConn
	n.at(n.outside, func() {
		var err error
		l, err = net.Listen("tcp4", "198.18.1.2:25")
		require.NoError(t, err)
		heard, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.18.1.2:25")))
		require.NoError(t, err)
	})
	stream, err := n.dial(n.inside, "tcp4", l.Addr().String())
	require.NoError(t, err)
	there, err := l.Accept()
	require.NoError(t, errors.Join(err, l.Close()))
	flow, err := n.dial(n.inside, "udp4", heard.LocalAddr().String())
	require.NoError(t, err)
	for _, c := range []net.Conn{stream, there, flow, heard} {
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	}
	answers, b := bufio.NewReader(stream), make([]byte, 64)
	for range 3 { // Either direction has been seen.
		_, err = io.WriteString(stream, "before\n")
		require.NoError(t, err)
		_, err = bufio.NewReader(there).ReadString('\n')
		require.NoError(t, err)
		_, err = io.WriteString(there, "answer\n")
		require.NoError(t, err)
		_, err = answers.ReadString('\n')
		require.NoError(t, err)
		_, err = io.WriteString(flow, "before")
		require.NoError(t, err)
		_, from, err := heard.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		_, err = heard.WriteToUDPAddrPort([]byte("answer"), from)
		require.NoError(t, err)
		_, err = flow.Read(b)
		require.NoError(t, err)
	}
	for _, c := range []net.Conn{stream, there} { // What is sent once more would be answered with a reset.
		enforcetest.IsAcknowledged(t, c.(*net.TCPConn))
	}
	return func() {
		for c, want := range map[net.Conn]error{stream: unix.ECONNRESET, flow: unix.EHOSTUNREACH} {
			_, err := io.WriteString(c, "undecided")
			if err == nil {
				_, err = c.Read(b)
			}
			require.ErrorIs(t, err, want)
		}
		sendOwn(t, heard.LocalAddr().(*net.UDPAddr).AddrPort(), "after")
		size, err := heard.Read(b)
		require.NoError(t, err)
		require.Equal(t, "after", string(b[:size]), "no other came before it")
		require.NoError(t, there.SetDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = there.Read(b)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "nothing came there, either")
		require.NoError(t, errors.Join(stream.Close(), there.Close(), flow.Close(), heard.Close()))
	}
}
