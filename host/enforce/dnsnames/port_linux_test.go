package dnsnames

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A connection from the port of one that was reset has its own flow, also when the first one
// is closed later.
func TestAPortThatIsUsedAgainHasItsOwnFlow(t *testing.T) {
	s := newSite(t, Options{Resolver: resolver(t, false), Logf: t.Logf}, false)
	l, _ := newListener(t, s)
	var from net.TCPAddr
	connect := func() (client *net.TCPConn, taken net.Conn) {
		client, err := net.DialTCP("tcp", &from, l.Addr().(*net.TCPAddr))
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
