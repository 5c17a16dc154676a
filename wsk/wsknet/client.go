package wsknet

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/calloutd/calloutd/wsk"
)

// errClosing is the cause of what ends because its client is closed.
var errClosing = fmt.Errorf("the client was closed: %w", net.ErrClosed)

// closing has for each client that NewClient made the context that its close ends.
var closing sync.Map

// whileOpen is ctx, or less: it ends when the client is closed, too.
func whileOpen(ctx context.Context, client *wsk.Client) (context.Context, context.CancelFunc) {
	open, ok := closing.Load(client)
	if !ok {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(open.(context.Context), func() { cancel(errClosing) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// endOf is the error of a context that ended.
func endOf(ctx context.Context) error {
	if context.Cause(ctx) == errClosing {
		return errClosing
	}
	return ctx.Err()
}

// NewClient registers a client with a provider of its own and captures it: what
// a program needs that only dials and listens. The caller owes the close, after
// that of every connection and Listener. It waits for them: half a minute at most for
// connections that were closed and whose peer was not, see Conn.Close. Who dials or
// listens meanwhile, or waits for that, gets net.ErrClosed. Later closes do nothing.
func NewClient(o wsk.Options) (client *wsk.Client, close func(), err error) {
	registration, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := wsk.NewProvider(o).Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, registration); !st.Ok() {
		return nil, nil, st.Err()
	}
	if st := registration.CaptureProviderNPI(wsk.InfiniteWait, &npi); !st.Ok() {
		registration.Deregister()
		return nil, nil, st.Err()
	}
	open, end := context.WithCancel(context.Background())
	closing.Store(npi.Client, open)
	return npi.Client, sync.OnceFunc(func() {
		registration.ReleaseProviderNPI()
		end()
		registration.Deregister()
		closing.Delete(npi.Client)
	}), nil
}
