package localproxy_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// fill writes until nothing has gone on for a while, and says how much it was.
func fill(t *testing.T, c net.Conn) (n int64) {
	b := make([]byte, 256<<10)
	for {
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		k, err := c.Write(b)
		n += int64(k)
		if err != nil {
			require.NoError(t, c.SetWriteDeadline(time.Time{}))
			return n
		}
	}
}

// A stalled connection is one whose one end writes and whose other end does not read.
type stalled struct {
	writes, reads net.Conn
	n             int64 // what was written
}

func reset(c net.Conn) {
	if c, ok := c.(*wsknet.Conn); ok {
		c.Abort()
		return
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// Who does not read holds up nobody else, costs no more than its buffers, gets all of it
// when it reads at last, and hears when the other end has reset meanwhile.
func TestForwardOfWhoDoesNotRead(t *testing.T) {
	w := open(t)
	far := make(chan *net.TCPConn)
	to := serve(t, func(c *net.TCPConn) { far <- c; <-t.Context().Done() }).String()
	w.start(localproxy.Forward, true)
	const each = 8
	all := make([]stalled, 2*each)
	var wg sync.WaitGroup
	before, others := heap(), len(sockets(t))
	for i := range all {
		client, origin := net.Conn(w.dial(to)), net.Conn(<-far)
		all[i] = stalled{writes: client, reads: origin}
		if i >= each {
			all[i] = stalled{writes: origin, reads: client}
		}
		t.Cleanup(func() { reset(client); reset(origin) })
		wg.Go(func() { all[i].n = fill(t, all[i].writes) })
	}
	wg.Wait()
	require.Less(t, heap()-before, int64(len(all)*128<<10), "it has a buffer for each, and what moves bytes")

	client, origin := w.dial(to), <-far
	for range 100 {
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(origin, make([]byte, 1))
		require.NoError(t, err)
	}
	reset(client)
	reset(origin)

	for _, s := range []stalled{all[0], all[each]} {
		got, err := io.CopyN(io.Discard, s.reads, s.n)
		require.NoError(t, err)
		require.Equal(t, s.n, got)
	}
	for _, s := range all {
		reset(s.writes)
	}
	require.Eventually(t, func() bool { return len(sockets(t)) <= others+len(all) }, time.Minute, 10*time.Millisecond, "the proxy's two of each are closed")
}

// A proxy that goes on keeps nothing of the connections that have ended.
func TestServedConnectionsLeaveNothing(t *testing.T) {
	for name, start := range map[string]func(context.Context, localproxy.Options) (*localproxy.Proxy, error){"forward": localproxy.Forward, "peek": localproxy.Peek} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			to := serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c); c.Close() }).String()
			w.start(start, true)
			served := func(n int) {
				for range n {
					c := w.dial(to)
					_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					require.NoError(t, err)
					require.NoError(t, c.CloseWrite())
					_, err = io.ReadAll(c)
					require.NoError(t, err)
					require.NoError(t, c.Close())
				}
			}
			served(50)
			before := heap()
			const n = 200
			served(n)
			require.Less(t, heap()-before, int64(n*1<<10))
		})
	}
}

// heap is what is allocated. What a pool has is not: it is given up at the second collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A connection that is closed one way stays open the other way, for as long as nothing comes.
func TestForwardHalfClosed(t *testing.T) {
	w := open(t)
	far := make(chan *net.TCPConn)
	to := serve(t, func(c *net.TCPConn) { far <- c; <-t.Context().Done() }).String()
	w.start(localproxy.Forward, true)
	client, origin := w.dial(to), <-far
	defer client.Close()
	defer origin.Close()
	require.NoError(t, client.CloseWrite())
	_, err := origin.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	time.Sleep(3 * time.Second) // Longer than anything in between waits.
	go func() {
		_, _ = origin.Write(make([]byte, 8<<20))
		origin.CloseWrite()
	}()
	got, err := io.Copy(io.Discard, client)
	require.NoError(t, err)
	require.EqualValues(t, 8<<20, got)
}
