package wsknet

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// A context that ends when nothing is under way any more cancels no later call: the
// connection that was made just before must still be able to disconnect.
func TestCancelWithLeavesNothingBehind(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRequest()
	defer r.free()
	require.NoError(t, r.cancelWith(ctx, func() error { cancel(); return nil }))
	require.False(t, r.irp.Cancelled())
}
