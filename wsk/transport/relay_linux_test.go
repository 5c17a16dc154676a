package transport_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/transport"
)

// held is how many descriptors of a kind the process has.
func held(t *testing.T, kind string) (n int) {
	t.Helper()
	const all = "/proc/self/fd/"
	files, err := os.ReadDir(all)
	require.NoError(t, err)
	for _, f := range files {
		if to, err := os.Readlink(all + f.Name()); err == nil && strings.HasPrefix(to, kind) { // What is closed meanwhile has none.
			n++
		}
	}
	return n
}

// heap is what is allocated. What a pool has is not: it is given up at the second collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestABindThatFailsHoldsNoDescriptor(t *testing.T) {
	at := listen(t).Local()
	before := held(t, "socket:")
	_, err := transport.Bind(at, transport.Options{})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.Equal(t, before, held(t, "socket:"))
}

// A relay that waits holds no descriptor besides its connections and no buffer, whatever it
// moved before.
func TestARelayThatWaitsHoldsNothing(t *testing.T) {
	const relays = 20
	pipes, before := held(t, "pipe:"), heap()
	var ends []<-chan relayed
	var from []*net.TCPConn
	for range relays {
		f, to, _, end := relay(t, always)
		const size = 1 << 20
		go f.Write(make([]byte, size))
		_, err := io.ReadFull(to, make([]byte, size))
		require.NoError(t, err)
		from, ends = append(from, f), append(ends, end)
	}
	// Package net keeps pipes for the next splice, until the collector takes them.
	require.Eventually(t, func() bool { runtime.GC(); return held(t, "pipe:") <= pipes }, time.Minute, time.Millisecond)
	require.Less(t, heap()-before, int64(relays*12<<10), "a buffer has 16 KiB")
	for i, f := range from {
		f.CloseWrite()
		require.NoError(t, (<-ends[i]).err)
	}
}

// A relay whose receiver takes nothing hears that its sender has reset, however often it had
// to wait before.
func TestRelayHearsOfAResetWhileItsReceiverTakesNothing(t *testing.T) {
	from, to, _, end := relay(t, always)
	for range 2 {
		var n int64
		for b := make([]byte, 256<<10); ; {
			require.NoError(t, from.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
			k, err := from.Write(b)
			if n += int64(k); err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				break
			}
		}
		_, err := io.CopyN(io.Discard, to, n/2)
		require.NoError(t, err)
	}
	require.NoError(t, from.SetLinger(0))
	require.NoError(t, from.Close())
	r := <-end
	require.ErrorIs(t, r.err, syscall.ECONNRESET)
}

// A relay whose receiver is gone in the middle of much says so, and keeps no pipe
// that has bytes of it for the next.
func TestRelayToAConnectionThatIsReset(t *testing.T) {
	before := held(t, "pipe:")
	from, to, _, end := relay(t, always)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		b := make([]byte, 1<<20)
		for {
			if _, err := from.Write(b); err != nil {
				return
			}
		}
	}()
	_, err := io.ReadFull(to, make([]byte, 4<<20))
	require.NoError(t, err)
	require.NoError(t, to.SetLinger(0))
	require.NoError(t, to.Close())
	r := <-end
	require.Error(t, r.err)
	require.GreaterOrEqual(t, r.n, int64(4<<20))
	from.Close()
	<-sent
	require.Eventually(t, func() bool { runtime.GC(); return held(t, "pipe:") <= before }, time.Minute, time.Millisecond)

	next, there, _, done := relay(t, always)
	const size = 1 << 20
	go func() { next.Write(make([]byte, size)); next.CloseWrite() }()
	got, err := io.ReadAll(there)
	require.NoError(t, err)
	require.Equal(t, make([]byte, size), got)
	require.NoError(t, (<-done).err)
}
