package remote

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClientsAreOfOneUserAndRoot(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1: false} {
		require.Equal(t, want, ownOrRoot(Peer{UID: uid}), "user %d", uid)
	}
}
