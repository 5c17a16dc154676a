package remote

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A request for which Close has not waited adds nothing that nobody would forget.
func TestNoSocketIsAddedAfterClose(t *testing.T) {
	s := newSockets(nil, 1)
	s.close()
	_, err := s.add(&tcpSocket{cookie: 1})
	require.ErrorIs(t, err, ntstatus.Cancelled)
}
