package ale

import (
	"context"
	"errors"

	"github.com/calloutd/calloutd/host/fwps"
)

// ErrAborted is a connection that was let go and that a callout aborted meanwhile
// (FwpsFlowAbort0): whoever let it go ends it. Of a flow of datagrams it is the one that
// was decided on, which goes nowhere.
var ErrAborted = errors.New("ale: a callout aborted the flow")

// A Carrier takes the connects of TCP sockets that live elsewhere through the
// layers, one after the other. Nobody says when such a connection closes: all
// that stays of it is its record, until the other side is accepted and closed.
//
// It uses its memory again: a connect allocates nothing but the record that it
// makes, and the Flow of one that is in progress. It is for one goroutine at a time.
type Carrier struct {
	e      *Enforcer
	s      Socket
	f      *Flow
	source SourceFunc
}

// NewCarrier returns a Carrier.
func (e *Enforcer) NewCarrier() *Carrier { return &Carrier{e: e, f: new(Flow)} }

// Connect is Socket.Connect of a new socket, whose flow ends for callouts when it
// is established. in.Remote is where it wants to go; bind is for a socket that is
// not bound (Socket.OnImplicitBind), nil if it cannot be bound here.
//
// If the error wraps ErrInProgress the Flow is the caller's, who owes Established
// when it is, and Detach in any case. There is none otherwise. ErrAborted, perhaps wrapped, says
// that the caller has to end the connection.
func (c *Carrier) Connect(ctx context.Context, in fwps.Incoming, bind BindFunc, connect ConnectFunc) (*Flow, error) {
	c.s.begins(c.e, in)
	c.s.implicit, c.s.source, c.s.spare = bind, c.source, c.f
	f, err := c.s.connect(ctx, nil, in.Remote, connect)
	if f != nil && (err == nil || f.Aborted()) {
		if f.Aborted() {
			err = ErrAborted
		}
		f.Detach()
		f = nil
	}
	if f != nil || c.f.fwps.Shown() || c.f.Aborted() { // A callout may abort it yet, and must not meet another one.
		c.f = new(Flow)
	}
	return f, err
}

// Aborted reports whether a callout has aborted what Connect lets go, for a connect that
// waits: it may give up. It can be asked from another goroutine meanwhile.
func (c *Carrier) Aborted() bool { return c.f.Aborted() }
