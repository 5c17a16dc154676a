package winsock_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/winsock"
)

// On a connection that nothing redirected Windows answers with an error of the
// page, which arrives as an Error, from the real WSAIoctl.
func TestSystemErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	accepted, err := l.Accept()
	require.NoError(t, err)
	defer accepted.Close()

	listed := []winsock.Error{winsock.FWPENotFound, winsock.ErrorNotFound, winsock.WSAEOpNotSupp, winsock.WSAEInval, winsock.WSAENoProtoOpt, winsock.WSAENotConn}
	for name, query := range map[string]func(net.Conn) ([]byte, error){"records": winsock.RedirectRecords, "context": winsock.RedirectContext} {
		_, err := query(accepted)
		var e winsock.Error
		require.ErrorAs(t, err, &e, name)
		require.Contains(t, listed, e, name)
	}
	_, err = winsock.OriginalDestination(accepted)
	var e winsock.Error
	require.ErrorAs(t, err, &e)

	d := net.Dialer{Control: winsock.Control([]byte("no records"))}
	_, err = d.Dial("tcp", l.Addr().String())
	require.ErrorAs(t, err, &e)
	require.ErrorContains(t, err, "redirect records for tcp4 "+l.Addr().String())
}
