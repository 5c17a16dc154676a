package localproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk/winsock"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// Forward starts a proxy that carries each connection to its original
// destination, with the redirect records set on its own socket, so that the
// callouts know the connection as their own (RED-SET-04, SC-30).
func Forward(ctx context.Context, o Options) (*Proxy, error) {
	return o.serve(ctx, "forward", func(ctx context.Context, in *wsknet.Conn) error { return o.carry(ctx, in, nil, "") })
}

// carry connects to the original destination and relays. What was read of in
// goes first; the name, if it is known, is what the destination is called.
func (o *Options) carry(ctx context.Context, in *wsknet.Conn, read []byte, name string) error {
	sealed, err := in.RedirectRecords(ctx)
	if err != nil {
		return fmt.Errorf("connection from %s was not redirected here: %w", in.RemoteAddr(), err)
	}
	b, err := in.RedirectContext(ctx)
	if err != nil {
		return fmt.Errorf("connection from %s has no redirect context: %w", in.RemoteAddr(), err)
	}
	to, err := sockaddr.Parse(b)
	if err != nil {
		return fmt.Errorf("redirect context does not begin with the original destination: %w", err)
	}
	d := wsknet.Dialer{Client: o.Client, Control: named(name, to, winsock.Control(sealed))}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	out := conn.(*wsknet.Conn)
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { abort(in, out) })
	defer stop()
	if len(read) > 0 {
		if _, err := out.Write(read); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	if err := relay(in, out); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

// abort resets both ends of a relay. They cannot take turns: an Abort waits until
// nobody uses its connection, and who moves bytes uses both and may be waiting for
// the other one. Both are over when it returns: a Close must not come before.
func abort(a, b *wsknet.Conn) {
	var wg sync.WaitGroup
	wg.Go(a.Abort)
	b.Abort()
	wg.Wait()
}

// relay copies both ways until both ends are done, passing each end's
// half-close on. io.Copy between these connections holds nothing
// while no bytes come.
func relay(a, b *wsknet.Conn) error {
	var ends atomic.Int32
	one := func(dst, src *wsknet.Conn) error {
		_, err := io.Copy(dst, src)
		if err == nil && ends.Add(1) == 1 { // After the last end both are closed, which says it too.
			err = dst.CloseWrite()
		}
		if err != nil { // Each end hears of the other's failure.
			abort(dst, src)
		}
		return err
	}
	var wg sync.WaitGroup
	var err1 error
	wg.Go(func() { err1 = one(a, b) })
	err2 := one(b, a)
	wg.Wait()
	for _, err := range []error{err1, err2} {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return nil
}
