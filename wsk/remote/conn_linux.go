package remote

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// A Conn is an accepted connection that answers for itself, as those of wsknet do:
// package winsock finds the queries.
type Conn struct {
	*net.TCPConn
	client *Client
}

// Conn makes an accepted connection answer for itself.
func (c *Client) Conn(conn *net.TCPConn) *Conn { return &Conn{conn, c} }

// RedirectRecords is Client.RedirectRecords of the connection.
func (c *Conn) RedirectRecords(ctx context.Context) ([]byte, error) {
	return c.client.RedirectRecords(ctx, c.TCPConn)
}

// RedirectContext is Client.RedirectContext of the connection.
func (c *Conn) RedirectContext(ctx context.Context) ([]byte, error) {
	return c.client.RedirectContext(ctx, c.TCPConn)
}

// OriginalDestination is Client.OriginalDestination of the connection.
func (c *Conn) OriginalDestination(ctx context.Context) (netip.AddrPort, error) {
	return c.client.OriginalDestination(ctx, c.TCPConn)
}

// A RawConn is a socket that takes redirect records.
type RawConn struct {
	syscall.RawConn
	client *Client
}

// RawConn makes a socket take records by winsock.SetRedirectRecords.
func (c *Client) RawConn(raw syscall.RawConn) *RawConn { return &RawConn{raw, c} }

// SetRedirectRecords is Client.SetRedirectRecords on the socket.
func (r *RawConn) SetRedirectRecords(ctx context.Context, records []byte) error {
	return r.client.SetRedirectRecords(ctx, r.RawConn, records)
}

// A Listener accepts connections that answer for themselves.
type Listener struct {
	*net.TCPListener
	client *Client
}

// Listener makes what a listener accepts answer for itself.
func (c *Client) Listener(l *net.TCPListener) *Listener { return &Listener{l, c} }

// Accept waits for a connection, which is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return l.client.Conn(conn), nil
}
