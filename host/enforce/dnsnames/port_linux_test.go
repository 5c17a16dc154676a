package dnsnames

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/loglimit"
)

// A connection from the port of one that was reset has its own flow, also when the first one
// is closed later.
func TestAPortThatIsUsedAgainHasItsOwnFlow(t *testing.T) {
	s := newSite(t, Options{Resolver: resolver(t, false), Logf: t.Logf}, false)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	local := tcp.Addr().(*net.TCPAddr).AddrPort()
	socket := s.ale.NewSocket(fwps.Incoming{ProcessID: 1, AppID: "/proxy", Local: local, Protocol: fwps.ProtocolTCP})
	defer socket.Close()
	l := &listener{TCPListener: tcp.(*net.TCPListener), socket: socket, ctx: t.Context(), log: loglimit.New(t.Logf),
		deciding: make(chan struct{}, maxDeciding), decided: make(chan net.Conn)}
	var wg sync.WaitGroup
	wg.Go(l.serve)
	defer wg.Wait()
	defer l.Close()
	var from net.TCPAddr
	connect := func() (client *net.TCPConn, taken net.Conn) {
		client, err := net.DialTCP("tcp", &from, tcp.Addr().(*net.TCPAddr))
		require.NoError(t, err)
		taken, err = l.Accept()
		require.NoError(t, err)
		from = *client.LocalAddr().(*net.TCPAddr)
		return client, taken
	}
	client, first := connect()
	require.NoError(t, client.SetLinger(0))
	require.NoError(t, client.Close())
	again, second := connect()
	defer again.Close()
	require.NoError(t, first.Close())
	_, has := l.flows.Load(from.AddrPort())
	require.True(t, has)
	require.NoError(t, second.Close())
	_, has = l.flows.Load(from.AddrPort())
	require.False(t, has)
}
