package wsknet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// A Conn is a connected socket. Its data path is the transport itself, so that
// io.Copy between two of them can splice.
type Conn struct {
	s    *wsk.Socket
	tcp  *transport.Conn
	end  request         // made it, and will end it
	cut  context.Context // ends the lingering
	asks context.Context // ends what is asked about the connection, when it is closed
	shut context.CancelFunc
	// lingering counts what lingers of an accepted connection.
	lingering *tally

	io   sync.RWMutex // held for reading while the transport is used
	once sync.Once

	mu     sync.Mutex
	closed bool
	timed  bool // a deadline was set
	fin    bool // CloseWrite was called

	ended atomic.Bool // the peer has closed its side, and all was read
}

func newConn(cut context.Context, s *wsk.Socket, made request) *Conn {
	c := &Conn{s: s, tcp: s.Transport(), end: made, cut: cut}
	c.asks, c.shut = context.WithCancel(context.Background())
	return c
}

// use runs an operation on the transport unless the connection is closed.
func (c *Conn) use(op func() error) error {
	c.io.RLock()
	defer c.io.RUnlock()
	if c.isClosed() {
		return net.ErrClosed
	}
	err := op()
	if errors.Is(err, os.ErrDeadlineExceeded) && c.isClosed() {
		return net.ErrClosed
	}
	return err
}

func (c *Conn) isClosed() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.closed }

// transfer is use for what the policy must still allow.
func (c *Conn) transfer(op string, do func() error) error {
	return c.use(func() error {
		if err := c.may(op); err != nil {
			return err
		}
		return do()
	})
}

// may asks whether the policy still allows the connection (ALE-LAY-12).
func (c *Conn) may(op string) error {
	if st := c.s.Reauthorize(c.asks); st != ntstatus.Success {
		if c.asks.Err() != nil {
			return net.ErrClosed
		}
		return explain(c.s, &OpError{Op: op, Status: st})
	}
	return nil
}

// Read reads; io.EOF is the peer's CloseWrite. It fails with an *OpError of
// STATUS_ACCESS_DENIED once the policy no longer allows the connection (ALE-LAY-12), with
// net.ErrClosed after Close, and with os.ErrDeadlineExceeded.
func (c *Conn) Read(b []byte) (n int, err error) {
	err = c.transfer("read", func() (err error) { n, err = c.tcp.Read(b); return err })
	if err == io.EOF {
		c.ended.Store(true)
	}
	return n, err
}

// Write writes all of b, or fails as Read does.
func (c *Conn) Write(b []byte) (n int, err error) {
	err = c.transfer("write", func() (err error) { n, err = c.tcp.Write(b); return err })
	return n, err
}

// ReadFrom lets io.Copy leave it to the transport to move the bytes of another
// connection, which holds nothing for them while none come.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	err = c.transfer("write", func() error {
		from, ok := r.(*Conn)
		if !ok {
			n, err = io.Copy(c.tcp, r)
			return err
		}
		return from.transfer("read", func() error {
			n, err = transport.Relay(c.tcp, from.tcp, func() error {
				if err := from.may("read"); err != nil {
					return err
				}
				return c.may("write")
			})
			if err == nil {
				from.ended.Store(true)
			}
			return err
		})
	})
	return n, err
}

// CloseWrite tells the peer that nothing more comes: it waits for what was written to be
// on its way. The second time it does nothing.
func (c *Conn) CloseWrite() error { return c.use(c.disconnect) }

func (c *Conn) disconnect() error {
	c.mu.Lock()
	again := c.fin
	c.fin = true
	c.mu.Unlock()
	if again {
		return nil
	}
	_, err := c.end.work("disconnect", func(p *wsk.IRP) ntstatus.Status { return c.s.Disconnect(nil, 0, p) })
	return err
}

// interrupt makes the connection closed and ends what others do with it.
func (c *Conn) interrupt() {
	c.mu.Lock()
	c.closed = true
	timed := c.timed
	c.mu.Unlock()
	c.shut()
	if !timed && c.io.TryLock() { // Nobody is there, and nobody comes.
		c.io.Unlock()
		return
	}
	c.tcp.SetDeadline(time.Unix(1, 0))
	c.io.Lock() // Until they have left.
	defer c.io.Unlock()
	c.tcp.SetDeadline(time.Time{})
}

// Close closes the connection in order: what was written still goes to the
// peer. It may be called while others read or write, who get net.ErrClosed.
// It does not wait, but the socket stays until the peer has closed too, for half a
// minute at most. Abort closes it at once.
func (c *Conn) Close() (err error) {
	c.once.Do(func() {
		c.interrupt()
		if c.ended.Load() { // There is nobody to wait for: the close itself disconnects.
			c.s.Disconnected()
		} else if c.disconnect() == nil {
			c.end.free()
			c.linger()
			return
		}
		err = c.end.shut(c.s) // The peer is gone, or both are done.
	})
	return err
}

// Abort closes the connection with a reset. After a Close it does nothing, nor a Close
// after it.
func (c *Conn) Abort() {
	c.once.Do(func() {
		c.interrupt()
		c.end.shut(c.s)
	})
}

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.tcp.LocalAddr() }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.deadline(c.tcp.SetDeadline, t) }

// SetReadDeadline sets the deadline of reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(c.tcp.SetReadDeadline, t) }

// SetWriteDeadline sets the deadline of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(c.tcp.SetWriteDeadline, t) }

func (c *Conn) deadline(set func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.timed = true
	return set(t)
}
