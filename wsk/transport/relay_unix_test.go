//go:build unix && !solaris

package transport_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/transport"
)

// connected are the two ends of a connection, package net's and ours.
func connected(t *testing.T) (*net.TCPConn, *transport.Conn) {
	l := listen(t)
	a, err := net.Dial("tcp", l.Local().String())
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	b, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return a.(*net.TCPConn), b
}

type relayed struct {
	n   int64
	err error
}

// relay is a relay from one connection to another, with the far ends of both.
func relay(t *testing.T, may func() error) (from, to *net.TCPConn, src *transport.Conn, end <-chan relayed) {
	from, src = connected(t)
	to, dst := connected(t)
	return from, to, src, carry(dst, src, may)
}

// An end is what a relay is between, and what ends it.
type end interface {
	transport.Stream
	CloseWrite() error
}

func carry(dst, src end, may func() error) <-chan relayed {
	done := make(chan relayed, 1)
	go func() {
		n, err := transport.Relay(dst, src, may)
		dst.CloseWrite()
		done <- relayed{n, err}
	}()
	return done
}

func always() error { return nil }

// Few bytes and many, at once and after pauses, arrive as they were sent.
func TestRelay(t *testing.T) {
	t.Run("between connections of ours", func(t *testing.T) {
		from, to, _, end := relay(t, always)
		moves(t, from, to, end)
	})
	t.Run("between those of package net", func(t *testing.T) {
		src, from := connected(t)
		dst, to := connected(t)
		moves(t, from, to, carry(dst, src, always))
	})
}

func moves(t *testing.T, from, to end, end <-chan relayed) {
	var sent int64
	for round, size := range []int{1, 100, 1 << 14, 1<<14 + 1, 1 << 20, 1, 3 << 20, 0, 1 << 15} {
		data := bytes.Repeat([]byte{byte(round + 1)}, size)
		go from.Write(data)
		got := make([]byte, size)
		_, err := io.ReadFull(to, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "round %d", round)
		sent += int64(size)
	}
	require.NoError(t, from.CloseWrite())
	_, err := io.ReadAll(to)
	require.NoError(t, err)
	require.Equal(t, relayed{sent, nil}, <-end)
}

func TestRelayOfAConnectionThatIsReset(t *testing.T) {
	from, _, _, end := relay(t, always)
	from.SetLinger(0)
	from.Close()
	r := <-end
	require.ErrorContains(t, r.err, "connection reset by peer")
	require.Zero(t, r.n)
}

// Few bytes go another way than many, which TestRelayToAConnectionThatIsReset has.
func TestRelayOfFewBytesToAConnectionThatIsReset(t *testing.T) {
	from, to, _, end := relay(t, always)
	require.NoError(t, to.SetLinger(0))
	require.NoError(t, to.Close())
	for {
		select {
		case r := <-end:
			var o *net.OpError
			require.ErrorAs(t, r.err, &o)
			require.Equal(t, to.LocalAddr().String(), o.Addr.String())
			return
		default:
			_, _ = from.Write([]byte("x"))
		}
	}
}

func TestRelayEndsWithTheDeadline(t *testing.T) {
	from, to, src, end := relay(t, always)
	_, err := from.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(to, make([]byte, 1))
	require.NoError(t, err)
	src.SetReadDeadline(time.Unix(1, 0))
	r := <-end
	require.ErrorIs(t, r.err, os.ErrDeadlineExceeded)
	require.EqualValues(t, 1, r.n)
}

// Bytes that came when the relay may not go on do not pass.
func TestRelayAsksBeforeBytesPass(t *testing.T) {
	no := errors.New("no")
	asked := 0
	from, to, _, end := relay(t, func() error {
		if asked++; asked > 1 {
			return no
		}
		return nil
	})
	for _, b := range []byte("xy") {
		_, err := from.Write([]byte{b})
		require.NoError(t, err)
		if b == 'x' {
			_, err = io.ReadFull(to, make([]byte, 1))
			require.NoError(t, err)
		}
	}
	require.Equal(t, relayed{1, no}, <-end)
	rest, err := io.ReadAll(to)
	require.NoError(t, err)
	require.Empty(t, rest)
}
