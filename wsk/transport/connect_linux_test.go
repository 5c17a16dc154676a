package transport_test

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/transport"
)

// full is a listener that has no place for one more: who connects to it waits.
func full(t *testing.T) (fd int, at netip.AddrPort) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback.Addr().As4()}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	at = netip.AddrPortFrom(loopback.Addr(), uint16(name.(*syscall.SockaddrInet4).Port))
	c, err := bind(t, loopback, transport.Options{}).Connect(t.Context(), at)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return fd, at
}

// A connect that has to wait can be given up, and tried again.
func TestConnectCanBeGivenUp(t *testing.T) {
	fd, at := full(t)
	s := bind(t, loopback, transport.Options{})
	local, before := s.Local(), held(t, "socket:")
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := s.Connect(ctx, at)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, local, s.Local())
	}
	require.Equal(t, before, held(t, "socket:"))
	require.NoError(t, syscall.Close(fd))
}

// A connect that has to wait hears how it ended.
func TestConnectWaits(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(listener int) error
		want error
	}{
		"for a place": {func(l int) error {
			fd, _, err := syscall.Accept(l)
			syscall.Close(fd)
			return err
		}, nil},
		"for nothing": {func(l int) error { return syscall.Shutdown(l, syscall.SHUT_RD) }, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fd, at := full(t)
			defer syscall.Close(fd)
			s, ended := bind(t, loopback, transport.Options{}), make(chan error, 1)
			go func() {
				c, err := s.Connect(t.Context(), at)
				if err == nil {
					err = c.Close()
				}
				ended <- err
			}()
			select {
			case err := <-ended:
				require.FailNow(t, "it did not wait", "%v", err)
			case <-time.After(50 * time.Millisecond):
			}
			require.NoError(t, c.end(fd))
			require.ErrorIs(t, <-ended, c.want) // When the system has asked once more.
		})
	}
}
