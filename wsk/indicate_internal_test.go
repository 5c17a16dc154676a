package wsk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// WSK-EVT-01: an event that was disabled just before its callback would have run is
// not one that the client refused: it comes once it is enabled again.
func TestIndicationWithoutCallbackIsNotRefused(t *testing.T) {
	s := &Socket{client: &Client{provider: &Provider{}}, dispatch: &ClientConnectionDispatch{}}
	s.in.unread = []byte("kept")
	s.indicate()
	require.Equal(t, "kept", string(s.in.unread))
	require.False(t, s.in.paused)
	require.Zero(t, s.in.held)

	s.indicateDatagram(&DatagramIndication{})
	require.Len(t, s.dgram.unread, 1)
	require.False(t, s.in.paused)
}

// An event that was disabled before it could tell of the peer's disconnect tells of it
// once it is enabled again.
func TestDisconnectWithoutCallbackIsNotTold(t *testing.T) {
	s := &Socket{client: &Client{provider: &Provider{}}, dispatch: &ClientConnectionDispatch{}}
	s.tellDisconnect()
	s.events.enabled = EventDisconnect | EventReceive
	require.Equal(t, EventDisconnect|EventReceive, s.untold())
}
