package control_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type daemon struct{ state string }

func (d daemon) Status() control.Status       { return control.Status{State: d.state, PID: 7} }
func (d daemon) Health() error                { return errors.New("a part has ended") }
func (d daemon) Reload(context.Context) error { return errors.New("policy.yaml:1:1: a mistake") }

func TestAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	_, err := control.Ask(t.Context(), path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(ctx, l, daemon{"ready"}) }()
	s, err := control.Ask(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, control.Status{State: "ready", PID: 7}, s)
	cancel()
	require.NoError(t, <-ended)

	// A socket that somebody else answers on.
	other, err := net.Listen("unix", path+"2")
	require.NoError(t, err)
	defer other.Close()
	go func() {
		c, err := other.Accept()
		if err == nil {
			c.Close()
		}
	}()
	_, err = control.Ask(t.Context(), path+"2")
	require.Error(t, err)
	require.False(t, errors.Is(err, syscall.ECONNREFUSED))
}
