package remote_test

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/remote"
)

// silent is a service that answers nothing. It gives its clients to each.
func silent(t *testing.T, each func(*net.UnixConn)) (path string) {
	path = t.TempDir() + "/s"
	l, err := remote.Listen("unixpacket", path, 0o600)
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			defer c.Close()
			each(c)
		}
	}()
	return path
}

// end waits until a client has closed its connection.
func end(t *testing.T, c *net.UnixConn) {
	err := c.SetReadDeadline(time.Now().Add(time.Minute))
	for err == nil {
		_, err = c.Read(make([]byte, 64))
	}
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is closed")
}

// The end of a request's context ends it, and is its error, whichever clock is faster. The
// connection is closed: an answer would be another request's.
func TestARequestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := remote.Dial(ctx, silent(t, func(c *net.UnixConn) { cancel(); end(t, c) }))
	require.ErrorIs(t, err, context.Canceled)

	path := silent(t, func(*net.UnixConn) {})
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := remote.Dial(ctx, path)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

// answers reads a request and answers it with a status.
func answers(t *testing.T, c *net.UnixConn, st ntstatus.Status) {
	b := make([]byte, 64)
	_, err := c.Read(b)
	assert.NoError(t, err)
	answer := packet(0x8000, "")
	copy(answer[8:], b[8:12])
	binary.LittleEndian.PutUint32(answer[16:], uint32(st))
	_, err = c.Write(answer)
	assert.NoError(t, err)
}

// A dial whose socket is to have records ends with its context, also while the service is silent.
func TestADialThatSetsRecordsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := remote.Dial(t.Context(), silent(t, func(c *net.UnixConn) {
		answers(t, c, ntstatus.Success)
		_, err := c.Read(make([]byte, 64))
		assert.NoError(t, err)
		cancel()
		end(t, c)
	}))
	require.NoError(t, err)
	defer c.Close()
	_, err = (&net.Dialer{ControlContext: c.Control([]byte("records"))}).DialContext(ctx, "tcp4", "127.0.0.1:1")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "redirect records for tcp4 127.0.0.1:1: ")
}

// A Dial that fails leaves no connection, also where the service has answered.
func TestADialThatFailsLeavesNoConnection(t *testing.T) {
	path := silent(t, func(c *net.UnixConn) { answers(t, c, ntstatus.AccessDenied); end(t, c) })
	_, err := remote.Dial(t.Context(), path)
	require.ErrorIs(t, err, ntstatus.AccessDenied)
}

// What is no answer to the request is an error that says where it goes wrong, and ends the connection.
func TestWhatIsNoAnswerEndsTheConnection(t *testing.T) {
	other := packet(0x8000, "")
	binary.LittleEndian.PutUint32(other[8:], 77)
	for want, answer := range map[string][]byte{
		"byte 3: a message has at least":      []byte("HTP"),
		"byte 6: this answers something else": other,
	} {
		path := silent(t, func(c *net.UnixConn) {
			_, err := c.Write(answer)
			assert.NoError(t, err)
			end(t, c)
		})
		_, err := remote.Dial(t.Context(), path)
		require.ErrorContains(t, err, "remote: ping: "+want)
	}
}

// A connection that was of use before and is none now is closed, and the request made on another.
func TestAConnectionThatFailsIsReplaced(t *testing.T) {
	first := true
	path := silent(t, func(c *net.UnixConn) {
		answers(t, c, ntstatus.Success)
		if first {
			first = false
			_, err := c.Write([]byte("HTTP"))
			assert.NoError(t, err)
		}
		end(t, c) // Nobody else is served before.
	})
	c, err := remote.Dial(t.Context(), path)
	require.NoError(t, err)
	_, err = c.RedirectContext(t.Context(), socket(t))
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// A socket that is closed already is an error, and no request that waits for its answer.
func TestARequestAboutAClosedSocket(t *testing.T) {
	s := newSite(t, remote.Options{})
	require.NoError(t, s.proxy.Close())
	_, err := s.client().RedirectRecords(t.Context(), s.proxy)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = s.client().RedirectRecords(t.Context(), nil)
	require.EqualError(t, err, "remote: query redirect records: no connection was given: invalid argument")
}

// Requests take turns on a connection; those of one time have their own, of which a few are kept.
func TestAClientKeepsAFewConnections(t *testing.T) {
	const many, kept = 6, 4
	var all sync.WaitGroup
	all.Add(many)
	s := newSite(t, remote.Options{MaySetRecords: func(remote.Peer) bool { all.Done(); all.Wait(); return false }})
	c := s.client()
	for range 3 {
		_, err := c.RedirectContext(t.Context(), socket(t))
		require.ErrorIs(t, err, ntstatus.NotFound)
	}
	require.Equal(t, 1, s.service.Stats().Clients)
	raw, err := socket(t).SyscallConn()
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() { assert.ErrorIs(t, c.SetRedirectRecords(t.Context(), raw, []byte("x")), ntstatus.AccessDenied) })
	}
	wg.Wait()
	eventually(t, "the others are closed", func() bool { return s.service.Stats().Clients <= kept })
	require.Equal(t, kept, s.service.Stats().Clients)
}
