package winsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// A connection of the engine, such as a *wsknet.Conn, answers by itself.
type (
	queries interface {
		RedirectRecords(context.Context) ([]byte, error)
		RedirectContext(context.Context) ([]byte, error)
		OriginalDestination(context.Context) (netip.AddrPort, error)
	}
	setter interface {
		SetRedirectRecords(context.Context, []byte) error
	}
)

// RedirectRecords are the records of a connection that was accepted, in the form
// that SetRedirectRecords takes. An error that is fs.ErrNotExist says that the
// connection was not redirected.
func RedirectRecords(conn net.Conn) ([]byte, error) {
	if q, ok := conn.(queries); ok {
		return q.RedirectRecords(context.Background())
	}
	return systemRecords(conn)
}

// RedirectContext is what the callout that redirected the connection left for
// the proxy, usually the original destination. The errors are those of RedirectRecords.
func RedirectContext(conn net.Conn) ([]byte, error) {
	if q, ok := conn.(queries); ok {
		return q.RedirectContext(context.Background())
	}
	return systemContext(conn)
}

// OriginalDestination is SO_ORIGINAL_DST of a connection that was accepted. The errors
// are those of RedirectRecords.
func OriginalDestination(conn net.Conn) (netip.AddrPort, error) {
	if q, ok := conn.(queries); ok {
		return q.OriginalDestination(context.Background())
	}
	return systemOriginal(conn)
}

// SetRedirectRecords puts records on a socket that is about to connect, so that
// the connection is known as the redirected one's continuation (RED-SET-04).
// Control is how a dialer calls it.
func SetRedirectRecords(c syscall.RawConn, records []byte) error {
	if s, ok := c.(setter); ok {
		return s.SetRedirectRecords(context.Background(), records)
	}
	return setSystem(c, records)
}

// Control is for the Control member of a net.Dialer or a wsknet.Dialer: it sets
// records on each socket that is dialed.
func Control(records []byte) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		if err := SetRedirectRecords(c, records); err != nil {
			return fmt.Errorf("winsock: redirect records for %s %s: %w", network, address, err)
		}
		return nil
	}
}

// errForeign says that nobody here knows a connection.
var errForeign = fmt.Errorf("winsock: the connection is neither the engine's nor is this Windows: %w", errors.ErrUnsupported)
