package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

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

// through connects to a carrier and returns what came out of it.
func through(t *testing.T, c *Carrier, to netip.AddrPort) (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	conn, err := l.Accept()
	require.NoError(t, err)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		c.Carry(context.Background(), conn.(*net.TCPConn), fwps.Incoming{Protocol: fwps.ProtocolTCP, Remote: to,
			Local: netip.AddrPortFrom(netip.IPv4Unspecified(), 0), ProcessID: 7, AppID: "/bin/client"})
	}()
	_, written := client.Write([]byte("hello"))
	ended := client.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(client)
	return string(b), errors.Join(written, ended, err) // Of a reset the first call tells that comes after it.
}

// site is a carrier that redirects what is wanted to the proxy and blocks port 25.
func site(t *testing.T, proxy netip.AddrPort) (*Carrier, *[]enforce.Denial) {
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
	var denied []enforce.Denial
	return &Carrier{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), OnBlocked: func(d enforce.Denial) { denied = append(denied, d) }}, &denied
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

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
