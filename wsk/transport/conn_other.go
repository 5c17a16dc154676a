//go:build !linux

package transport

import (
	"net"
	"net/netip"
)

// A Conn is a TCP connection.
type Conn struct{ *net.TCPConn }

// Local is this end's address.
func (c *Conn) Local() netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// Remote is the peer's address.
func (c *Conn) Remote() netip.AddrPort { return c.RemoteAddr().(*net.TCPAddr).AddrPort() }

// A Listener accepts connections.
type Listener struct{ *net.TCPListener }

// Local is where the listener listens.
func (l *Listener) Local() netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// Accept waits for a connection. After Close its error is net.ErrClosed.
func (l *Listener) Accept() (*Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}
