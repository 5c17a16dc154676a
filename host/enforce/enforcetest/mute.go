package enforcetest

import (
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Mute is a proxy that takes connections and says nothing, until end. One that nobody
// comes to, or that cannot take who comes, fails the test: nothing would have waited.
func Mute(t testing.TB) (at netip.AddrPort, end func()) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for taken := 0; ; taken++ {
			c, err := l.Accept()
			if err != nil {
				assert.ErrorIs(t, err, net.ErrClosed)
				assert.NotZero(t, taken, "nobody came to the mute proxy")
				return
			}
			defer c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), func() { l.Close(); <-done }
}

// Heap is how many bytes of memory are in use.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // What pools held, too.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
