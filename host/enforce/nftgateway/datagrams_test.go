//go:build linux

package nftgateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// echo answers datagrams in a namespace with its name, what it heard and from whom.
func (n *network) echo(ns netns.NsHandle, at, name string) netip.AddrPort {
	var c *net.UDPConn
	n.at(ns, func() {
		var err error
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		require.NoError(n.t, err)
	})
	done := make(chan struct{})
	n.t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, carry.MaxDatagram)
		for {
			size, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s heard %s from %s", name, b[:size], from.Addr().Unmap()), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// inside is a socket of who is behind the interface.
func (n *network) client(at string) *net.UDPConn {
	var c *net.UDPConn
	n.at(n.inside, func() {
		var err error
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		require.NoError(n.t, err)
	})
	n.t.Cleanup(func() { c.Close() })
	require.NoError(n.t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

func (n *network) send(c *net.UDPConn, to netip.AddrPort, text string) {
	_, err := c.WriteToUDPAddrPort([]byte(text), to)
	require.NoError(n.t, err)
}

// ask sends a word and returns the answer, which comes from whom it was sent to.
func (n *network) ask(c *net.UDPConn, to netip.AddrPort, text string) string {
	n.send(c, to, text)
	b := make([]byte, carry.MaxDatagram)
	size, from, err := c.ReadFromUDPAddrPort(b)
	require.NoError(n.t, err)
	require.Equal(n.t, to, plain(from), "the answer has the right address")
	return string(b[:size])
}

// deciding is an enforcer that sends IPv4 datagrams to 203.0.113.0/24 to a proxy and
// blocks the port 25.
func deciding(t *testing.T, proxy netip.AddrPort) *ale.Enforcer {
	e := host.New(host.Options{})
	_, _, err := e.RegisterCallout("test", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if netip.MustParsePrefix("203.0.113.0/24").Contains(c.In.Remote.Addr()) {
			v.Redirect, v.To, v.TargetPID = true, proxy, uint32(os.Getpid())
		}
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "test", Name: "test"}}
		p.Filters = []fwpm.Filter{
			{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "test"},
			{ID: 2, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(25)}}},
			{ID: 3, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV6, Action: fwp.ActionBlock,
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(25)}}},
		}
		return nil
	}))
	return ale.New(ale.Options{Classifier: e, Store: memstore.New(0)})
}

// Datagrams are decided and carried, and the answers come from whom they were sent
// to, for several at once.
func TestDatagrams(t *testing.T) {
	router(t, func(n *network) {
		proxy := n.echo(must(netns.Get()), "127.0.0.1:0", "proxy")
		var mu sync.Mutex
		var denied []string
		told := make(chan struct{}, 16)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, proxy), Transparent: true, Logf: t.Logf, OnBlocked: func(d enforce.Denial) {
			mu.Lock()
			denied = append(denied, d.Local.Addr().String()+" "+d.Err.Error())
			mu.Unlock()
			told <- struct{}{}
		}})
		require.NoError(t, err)
		defer g.Close()
		one, two := n.echo(n.outside, "198.18.1.2:0", "one"), n.echo(n.outside, "198.18.1.2:0", "two")
		six := n.echo(n.outside, "[2001:db8:18:1::2]:0", "six")
		for range 2 { // clients
			c := n.client("198.18.0.2:0")
			c6 := n.client("[2001:db8:18::2]:0")
			for range 3 {
				require.Equal(t, "one heard hello from 198.18.1.1", n.ask(c, one, "hello"))
				require.Equal(t, "two heard hello from 198.18.1.1", n.ask(c, two, "hello"))
				require.Equal(t, "proxy heard hello from 127.0.0.1", n.ask(c, netip.MustParseAddrPort("203.0.113.10:53"), "hello"))
				require.Equal(t, "six heard hello from 2001:db8:18:1::1", n.ask(c6, six, "hello"))
			}
		}
		// A blocked one is told, and nothing of it goes out.
		c := n.client("198.18.0.2:0")
		n.send(c, netip.MustParseAddrPort("198.18.1.2:25"), "mail")
		<-told
		require.Equal(t, "one heard after from 198.18.1.1", n.ask(c, one, "after"))
		require.NoError(t, g.Close())
		require.Len(t, denied, 1)
		require.Contains(t, denied[0], "198.18.0.2 ")
		require.Contains(t, denied[0], `"no mail"`)
	})
}

// A program whose socket is connected hears at once that its datagrams go nowhere: that
// they are blocked, as of what the rules refuse, and that nobody is there.
func TestDatagramsThatGoNowhereAreRefused(t *testing.T) {
	router(t, func(n *network) {
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		gone := must(netip.ParseAddrPort("127.0.0.1:9")) // the proxy: nobody
		var mu sync.Mutex
		denied := 0
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, gone), Transparent: true, Logf: func(format string, a ...any) {
			t.Errorf(format, a...)
		}, OnBlocked: func(enforce.Denial) { mu.Lock(); denied++; mu.Unlock() }})
		require.NoError(t, err)
		defer g.Close()
		for _, c := range []struct {
			to   string
			want error
		}{
			{"198.18.1.2:25", unix.EHOSTUNREACH},
			{"[2001:db8:18:1::2]:25", unix.EACCES},
			{"198.18.1.2:9", unix.ECONNREFUSED},
			{"[2001:db8:18:1::2]:9", unix.ECONNREFUSED},
			{"203.0.113.10:53", unix.ECONNREFUSED},
		} {
			s, err := n.dial(n.inside, "udp", c.to)
			require.NoError(t, err)
			require.NoError(t, s.SetDeadline(time.Now().Add(time.Minute)))
			for range 3 { // Each is decided, and told.
				_, err = s.Write([]byte("hello"))
				if err == nil {
					_, err = s.Read(make([]byte, 64))
				}
				require.ErrorIs(t, err, c.want, c.to)
			}
			require.NoError(t, s.Close())
		}
		// A socket for all has the others' answers.
		c := n.client("198.18.0.2:0")
		n.send(c, netip.MustParseAddrPort("198.18.1.2:25"), "mail")
		require.Equal(t, "one heard after from 198.18.1.1", n.ask(c, one, "after"))
		require.NoError(t, g.Close())
		mu.Lock()
		require.Equal(t, 7, denied)
		mu.Unlock()
	})
}

// They go by way of a SOCKS proxy, too.
func TestDatagramsByWayOfSOCKS(t *testing.T) {
	danted := enforcetest.Tool(t, "danted")
	router(t, func(n *network) {
		const at = "127.0.0.1:1080"
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(`
logoutput: `+dir+`/log
internal: 127.0.0.1 port = 1080
external: out
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 command: udpassociate udpreply }
`), 0o644))
		cmd := exec.Command(danted, "-f", filepath.Join(dir, "conf"), "-p", filepath.Join(dir, "pid"))
		require.NoError(t, cmd.Start())
		defer func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }()
		require.Eventually(t, func() bool {
			c, err := net.Dial("tcp", at)
			if err == nil {
				c.Close()
			}
			return err == nil
		}, time.Minute, 5*time.Millisecond)
		// The proxy is asked for whom the program asked for: who is outside has that address.
		n.script(n.outside, "ip addr add 203.0.113.10/32 dev lo")
		n.echo(n.outside, "203.0.113.10:53", "resolver")
		proxy := netip.MustParseAddrPort(at)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, proxy), Transparent: true, Logf: t.Logf,
			OnBlocked: func(d enforce.Denial) { t.Error(d.Err) }, Handoff: handoff.Only(proxy, &handoff.Proxy{Kind: handoff.SOCKS5})})
		require.NoError(t, err)
		defer g.Close()
		c := n.client("198.18.0.2:0")
		for range 3 {
			require.Equal(t, "resolver heard hello from 198.18.1.1", n.ask(c, netip.MustParseAddrPort("203.0.113.10:53"), "hello"))
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// script runs commands in a namespace.
func (n *network) script(ns netns.NsHandle, text string) {
	n.at(ns, func() {
		out, err := exec.Command("sh", "-euc", text).CombinedOutput()
		require.NoError(n.t, err, "%s", out)
	})
}
