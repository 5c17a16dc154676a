package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// maxIdle is how many connections a client keeps for the next requests.
const maxIdle = 4

// A Client asks a Service. It is safe for concurrent use: requests that run at the
// same time have connections of their own. Close must be called.
type Client struct {
	path string
	last atomic.Uint32 // the newest request

	mu     sync.Mutex
	idle   []*link
	closed bool
}

// A link is a connection with room for an answer.
type link struct {
	*net.UnixConn
	answer [maxMessage]byte
}

// Dial connects to the service of a path and waits for its answer.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path}
	if _, err := c.request(ctx, opPing, nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connections: those that a request uses when it ends. A request that
// begins later is net.ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, conn := range idle {
		conn.Close()
	}
	return nil
}

// RedirectRecords are the records of a connection that was accepted, in the form
// that SetRedirectRecords takes. An error that is fs.ErrNotExist says that it was
// not redirected, fs.ErrPermission that the policy or the service refuses.
func (c *Client) RedirectRecords(ctx context.Context, conn syscall.Conn) ([]byte, error) {
	return c.about(ctx, opQueryRecords, conn, nil)
}

// RedirectContext is what the callout that redirected the connection left for the
// proxy.
func (c *Client) RedirectContext(ctx context.Context, conn syscall.Conn) ([]byte, error) {
	return c.about(ctx, opQueryContext, conn, nil)
}

// OriginalDestination is where a redirected connection was to go.
func (c *Client) OriginalDestination(ctx context.Context, conn syscall.Conn) (netip.AddrPort, error) {
	b, err := c.about(ctx, opQueryOriginal, conn, nil)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return parseAddress(b)
}

// SetRedirectRecords puts records on a socket that is about to connect.
func (c *Client) SetRedirectRecords(ctx context.Context, raw syscall.RawConn, records []byte) error {
	_, err := c.request(ctx, opSetRecords, raw, records)
	return err
}

// Control is for the ControlContext member of a net.Dialer: it sets records on each
// socket that is dialed. The dial's context ends it.
func (c *Client) Control(records []byte) func(ctx context.Context, network, address string, raw syscall.RawConn) error {
	return func(ctx context.Context, network, address string, raw syscall.RawConn) error {
		if err := c.SetRedirectRecords(ctx, raw, records); err != nil {
			return fmt.Errorf("redirect records for %s %s: %w", network, address, err)
		}
		return nil
	}
}

func (c *Client) about(ctx context.Context, op operation, conn syscall.Conn, payload []byte) ([]byte, error) {
	if conn == nil {
		return nil, fmt.Errorf("remote: %v: no connection was given: %w", op, fs.ErrInvalid)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return c.request(ctx, op, raw, payload)
}

// request asks, once more on a new connection if the service has closed an idle
// one: a request may be repeated.
func (c *Client) request(ctx context.Context, op operation, about syscall.RawConn, payload []byte) ([]byte, error) {
	if len(payload) > maxPayload {
		return nil, &StatusError{Op: op.String(), Status: ntstatus.InvalidParameter, Why: fmt.Sprintf("%d bytes, the most is %d", len(payload), maxPayload)}
	}
	req := message{op: op, id: c.last.Add(1), payload: payload}
	for {
		conn, used, err := c.connection(ctx)
		if err != nil {
			return nil, fmt.Errorf("remote: %v: %w", op, err)
		}
		data, err := exchange(ctx, conn, &req, about)
		var st *StatusError
		switch {
		case err == nil, errors.As(err, &st) && st.Status != ntstatus.InsufficientResources:
			c.keep(conn)
			return data, err
		case used && ctx.Err() == nil && st == nil:
			conn.Close()
			continue
		}
		conn.Close()
		if st == nil {
			if cause := context.Cause(ctx); cause != nil {
				err = fmt.Errorf("%w: %w", cause, err)
			}
			err = fmt.Errorf("remote: %v: %w", op, err)
		}
		return nil, err
	}
}

func (c *Client) connection(ctx context.Context) (conn *link, used bool, err error) {
	c.mu.Lock()
	last, closed := len(c.idle)-1, c.closed
	if last >= 0 {
		conn, c.idle = c.idle[last], c.idle[:last]
	}
	c.mu.Unlock()
	switch {
	case closed:
		return nil, false, net.ErrClosed
	case conn != nil:
		return conn, true, nil
	}
	var d net.Dialer
	any, err := d.DialContext(ctx, "unixpacket", c.path)
	if err != nil {
		return nil, false, err
	}
	return &link{UnixConn: any.(*net.UnixConn)}, false, nil
}

func (c *Client) keep(conn *link) {
	c.mu.Lock()
	room := !c.closed && len(c.idle) < maxIdle
	if room {
		c.idle = append(c.idle, conn)
	}
	c.mu.Unlock()
	if !room {
		conn.Close()
	}
}

// exchange sends a request, with the descriptor of about if that is not nil, and
// reads the answer. The end of ctx ends it.
func exchange(ctx context.Context, conn *link, req *message, about syscall.RawConn) ([]byte, error) {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	// Not by the deadline of ctx: the connection's clock may be the faster one, and nobody could
	// tell why it ended.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // It fails only for a closed one.
	defer stop()
	// A service that turns clients away has said why before.
	if err := send(conn.UnixConn, req.appendTo(nil), about); err != nil && !errors.Is(err, syscall.EPIPE) {
		return nil, err
	}
	n, err := conn.Read(conn.answer[:])
	if err != nil {
		return nil, err
	}
	m, err := parse(conn.answer[:n])
	switch {
	case err != nil:
		return nil, err
	case m.op&answerBit == 0 || m.id != req.id && (m.id != 0 || m.status.Ok()):
		return nil, &wireError{6, "this answers something else"}
	case m.status != ntstatus.Success:
		return nil, &StatusError{Op: req.op.String(), Status: m.status, Rule: m.rule, Why: string(m.payload)}
	}
	return bytes.Clone(m.payload), nil
}

func send(conn *net.UnixConn, b []byte, about syscall.RawConn) (err error) {
	if about == nil {
		_, err = conn.Write(b)
		return err
	}
	cerr := about.Control(func(fd uintptr) {
		_, _, err = conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(cerr, err)
}
