package memstore_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/host/redirect/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(limit int) redirect.Store { return memstore.New(limit) })
}

func TestAnEmptyStoreIsSmallAgain(t *testing.T) {
	s := memstore.New(0)
	hops := make([]redirect.Hop, 200_000)
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	empty := live()
	for i := range hops {
		hops[i].Serial = s.NewSerial()
		require.NoError(t, s.Put(&hops[i]))
	}
	require.Greater(t, live(), empty+4<<20)
	for i := range hops {
		require.NoError(t, s.Release(hops[i].Serial))
	}
	require.Less(t, live(), empty+1<<20)
	runtime.KeepAlive(s)
	runtime.KeepAlive(hops)
}
