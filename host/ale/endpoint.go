package ale

import (
	"context"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwps"
)

// ErrInProgress is what Endpoint.Connect wraps when a non-blocking socket has
// begun to connect. The connection has been let go: its record must stay.
var ErrInProgress = errors.New("ale: connection in progress")

// An Endpoint is a socket whose owner asked to connect. Every backend has one.
type Endpoint interface {
	// Incoming says what is known about the socket: addresses, owner, and the
	// records that were set on it.
	Incoming() fwps.Incoming
	// Connect lets the connection go to the given address and returns the
	// socket's local address, also when the error wraps ErrInProgress.
	Connect(ctx context.Context, to netip.AddrPort) (local netip.AddrPort, err error)
}
