//go:build linux && (amd64 || arm64)

package seccomp

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func monitorOf(t *testing.T) monitor {
	m, err := newMonitor()
	require.NoError(t, err)
	t.Cleanup(m.close)
	return m
}

func TestMonitorHearsOfWhatItWatches(t *testing.T) {
	m := monitorOf(t)
	events := make([]unix.EpollEvent, 4)
	require.Empty(t, m.wait(events, time.Millisecond), "the time is over")
	m.poke()
	require.Len(t, m.wait(events, -1), 1, "poked before it waits")
	require.Empty(t, m.wait(events, time.Millisecond), "once")

	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	require.NoError(t, m.add(pipe[0], unix.EPOLLIN|unix.EPOLLONESHOT))
	heard := make(chan int32)
	go func() { heard <- m.wait(events, -1)[0].Fd }()
	unix.Close(pipe[1])
	require.EqualValues(t, pipe[0], <-heard)
	require.Empty(t, m.wait(events, time.Millisecond), "once")
}

func TestMonitorsWaitWithoutThreads(t *testing.T) {
	const n = 200
	threads := func() int {
		all, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		return len(all)
	}
	before := threads() // They never become less.
	var about, over sync.WaitGroup
	for range n {
		m := monitorOf(t)
		about.Add(1)
		over.Go(func() {
			about.Done()
			m.wait(make([]unix.EpollEvent, 1), 50*time.Millisecond)
		})
	}
	about.Wait()
	over.Wait()
	require.Less(t, threads()-before, n/2)
}
