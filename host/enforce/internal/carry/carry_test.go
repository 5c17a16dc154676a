package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var wanted = netip.MustParseAddrPort("203.0.113.10:80")

// serve runs say on each connection.
func serve(t *testing.T, say func(c net.Conn)) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			say(c)
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// carried is a client whose connection is carried, and what is closed when that is over.
func carried(t *testing.T, c *Carrier, to netip.AddrPort) (client net.Conn, over <-chan struct{}) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Carry(context.Background(), conn.(*net.TCPConn), fwps.Incoming{Protocol: fwps.ProtocolTCP, Remote: to,
			Local: netip.AddrPortFrom(netip.IPv4Unspecified(), 0), ProcessID: 7, AppID: "/bin/client"})
	}()
	return client, done
}

// through connects to a carrier and returns what came out of it.
func through(t *testing.T, c *Carrier, to netip.AddrPort) (string, error) {
	client, over := carried(t, c, to)
	defer func() { client.Close(); <-over }()
	_, written := client.Write([]byte("hello"))
	ended := client.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(client)
	return string(b), errors.Join(written, ended, err) // Of a reset the first call tells that comes after it.
}

// site is a carrier that redirects what is wanted to the proxy and blocks port 25.
func site(t *testing.T, proxy netip.AddrPort) (*Carrier, *[]enforce.Denial) {
	return on(engine(t, proxy))
}

func on(e *host.Engine) (*Carrier, *[]enforce.Denial) {
	var denied []enforce.Denial
	return &Carrier{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), OnBlocked: func(d enforce.Denial) { denied = append(denied, d) },
		OnTimeout: func(*fwps.Incoming, error) {}, Counts: new(Counts)}, &denied
}

func engine(t *testing.T, proxy netip.AddrPort) *host.Engine {
	e := host.New(host.Options{})
	_, _, err := e.RegisterCallout("c", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Remote == wanted {
			v.Redirect, v.To, v.TargetPID = true, proxy, uint32(os.Getpid())
		}
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "c"},
			{ID: 2, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{
				{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(25)}}}}
		return nil
	}))
	return e
}

// echo answers what it reads, and takes no pipe for that.
func echo(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

func TestCarry(t *testing.T) {
	origin, proxy := serve(t, echo), serve(t, func(c net.Conn) { _, _ = io.WriteString(c, "proxy "); echo(c) })
	c, _ := site(t, proxy)
	got, err := through(t, c, origin)
	require.NoError(t, err)
	require.Equal(t, "hello", got, "half-closed and all")
	got, err = through(t, c, wanted)
	require.NoError(t, err)
	require.Equal(t, "proxy hello", got)
	require.Zero(t, c.ALE.LiveHops()-1, "the proxy of another process keeps none of ours but what nobody accepted")
}

func TestCarryBlocked(t *testing.T) {
	c, denied := site(t, netip.AddrPort{})
	_, err := through(t, c, netip.MustParseAddrPort("127.0.0.1:25"))
	require.Error(t, err)
	require.Len(t, *denied, 1)
	require.EqualValues(t, 7, (*denied)[0].PID)
	var b *ale.BlockedError
	require.True(t, errors.As((*denied)[0].Err, &b))
	require.Equal(t, "no mail", b.Name)
}

// What a policy lets go on it may end: no byte passes after that.
func TestCarryAsksAgainWhenThePolicyChangesALELAY12(t *testing.T) {
	origin := serve(t, echo)
	e := engine(t, netip.AddrPort{})
	c, denied := on(e)
	client, over := carried(t, c, origin)
	b := make([]byte, 1)
	for range 2 {
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(client, b)
		require.NoError(t, err)
	}
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Filters = append(p.Filters, fwpm.Filter{ID: 3, Name: "no more", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock})
		return nil
	}))
	_, err := client.Write([]byte("y"))
	require.NoError(t, err)
	_, err = client.Read(b)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	<-over
	require.Len(t, *denied, 1, "told once")
	var blocked *ale.BlockedError
	require.ErrorAs(t, (*denied)[0].Err, &blocked)
	require.Equal(t, "no more", blocked.Name)
}

// CO-FLW-03: what a callout aborts is reset, to both sides, though nothing moves.
func TestCarryEndsWhatACalloutAborts(t *testing.T) {
	for _, when := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4} {
		carries, ends := make(chan bool, 1), make(chan error, 1)
		origin := serve(t, func(c net.Conn) {
			_, err := c.Read(make([]byte, 1))
			if err == nil {
				carries <- true
				_, err = c.Read(make([]byte, 1))
			}
			ends <- err
		})
		e := engine(t, netip.AddrPort{})
		flows := make(chan *fwps.Flow, 1)
		_, _, err := e.RegisterCallout("keeps", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			v.Action = fwp.ActionPermit
			if when == fwpm.LayerALEFlowEstablishedV4 { // Before there is somebody who relays.
				e.FlowAbort(c.In.Flow)
			} else {
				flows <- c.In.Flow
			}
			return nil
		}))
		require.NoError(t, err)
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Callouts = append(p.Callouts, fwpm.Callout{ID: "keeps", Name: "keeps"})
			p.Filters = append(p.Filters, fwpm.Filter{ID: 3, Name: "keeps", Layer: when, Action: fwp.ActionCalloutUnknown, Callout: "keeps"})
			return nil
		}))
		c, denied := on(e)
		client, over := carried(t, c, origin)
		if when == fwpm.LayerALEAuthConnectV4 {
			_, err := client.Write([]byte("x"))
			require.NoError(t, err)
			<-carries
			e.FlowAbort(<-flows)
		}
		require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = client.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.ErrorIs(t, <-ends, syscall.ECONNRESET)
		<-over
		require.Empty(t, *denied)
	}
}

// A connection that does nothing is two descriptors, whatever went by before.
func TestCarryHoldsNoPipeWhileNothingMoves(t *testing.T) {
	pipes := func() (n int) {
		all, err := os.ReadDir("/proc/self/fd")
		if runtime.GOOS != "linux" {
			t.Skip("only Linux splices, and says what a process holds:", err)
		}
		require.NoError(t, err)
		for _, f := range all {
			if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
				n++
			}
		}
		return n
	}
	before := pipes()
	c, _ := site(t, netip.AddrPort{})
	client, over := carried(t, c, serve(t, echo))
	_, err := client.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(client, make([]byte, 1))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return pipes() <= before }, time.Minute, time.Millisecond) // Whoever has read the byte may be faster.
	client.Close()
	<-over
}

func TestCarryHandsOver(t *testing.T) {
	socks := func(reply byte) netip.AddrPort {
		return serve(t, func(c net.Conn) {
			b := make([]byte, 10)
			_, _ = io.ReadFull(c, b[:3])
			_, _ = c.Write([]byte{5, 0})
			_, _ = io.ReadFull(c, b)
			_, _ = c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
			if reply == 0 {
				_, _ = io.WriteString(c, netip.AddrFrom4([4]byte(b[4:8])).String()+" ")
				echo(c)
			}
		})
	}
	proxy := socks(0)
	c, _ := site(t, proxy)
	c.Handoff = handoff.Only(proxy, &handoff.Proxy{Kind: handoff.SOCKS5})
	got, err := through(t, c, wanted)
	require.NoError(t, err)
	require.Equal(t, "203.0.113.10 hello", got)

	proxy = socks(5)
	c, _ = site(t, proxy)
	c.Handoff = handoff.Only(proxy, &handoff.Proxy{Kind: handoff.SOCKS5})
	_, err = through(t, c, wanted)
	require.Error(t, err, "reset")
}

func TestIDs(t *testing.T) {
	var a, b IDs
	seen := map[string]bool{}
	for range 100 {
		for _, n := range []*IDs{&a, &b} {
			id := n.Next()
			require.Len(t, id, 16)
			require.False(t, seen[string(id)])
			seen[string(id)] = true
		}
	}
}
