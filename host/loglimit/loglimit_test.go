package loglimit_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/loglimit"
)

type lines []string

func (l *lines) printf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Of many lines the first ones are logged, then one a second, and each that is not is counted.
func TestAFloodIsBoundedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lines
		l := loglimit.New(said.printf)
		flood := func(n int) {
			for i := range n {
				l.Printf("connection %d", i)
			}
		}
		flood(100)
		require.Len(t, said, loglimit.Burst)
		require.Equal(t, "connection 19", said[19])

		time.Sleep(loglimit.Every - 1)
		flood(1)
		require.Len(t, said, 20, "not yet")
		time.Sleep(time.Nanosecond)
		flood(10)
		require.Len(t, said, 21)
		require.Equal(t, "connection 0 (81 more like it were not logged)", said[20])

		l.Close()
		require.Equal(t, "connection … (9 more like it were not logged)", said[21])
		l.Close()
		require.Len(t, said, 22)

		time.Sleep(5 * loglimit.Every / 2)
		flood(10)
		require.Len(t, said, 24, "as many as there was time for")
		require.Equal(t, "connection 0", said[22], "they were told")
		time.Sleep(24 * time.Hour)
		flood(100)
		require.Len(t, said, 24+loglimit.Burst, "and never more at once")
	})
}

// Who floods the log with one kind of line hides nothing of another.
func TestNoKindHidesAnother(t *testing.T) {
	var said lines
	l := loglimit.New(said.printf)
	for range 100 {
		l.Printf("chatter of %s", "a")
	}
	l.Printf("trap")
	require.Equal(t, "trap", said[loglimit.Burst])
	for range loglimit.Burst {
		l.Printf("trap")
	}
	told := len(said)
	l.Close()
	require.ElementsMatch(t, lines{"chatter of … (80 more like it were not logged)", "trap (1 more like it were not logged)"}, said[told:])
}

// Whoever logs at the same time: no more lines are logged than may be, and each of the others
// is counted, once.
func TestEachIsLoggedOrCounted(t *testing.T) {
	const loggers, each, burst = 4, 100_000, 200_000
	var k loglimit.Kind
	var logged, counted atomic.Uint64
	log := func(burst int) {
		if left, ok := k.Pass(burst); ok {
			logged.Add(1)
			counted.Add(left)
		}
	}
	together := func(f func(i int)) {
		var wg sync.WaitGroup
		for range loggers {
			wg.Go(func() {
				for i := range each {
					f(i)
				}
			})
		}
		wg.Wait()
	}
	began := time.Now()
	together(func(int) { log(burst) })
	require.LessOrEqual(t, logged.Load(), burst+1+uint64(time.Since(began)/loglimit.Every))

	// Now every other line may be logged, and takes the count of those that were left out.
	together(func(i int) { log(1 + i%2*loggers*each) })
	log(2 * loggers * each)
	require.EqualValues(t, 2*loggers*each+1, logged.Load()+counted.Load())
}

func TestWhatIsLeftOutAllocatesNothing(t *testing.T) {
	var k loglimit.Kind
	k.Pass(1)
	require.Zero(t, testing.AllocsPerRun(1000, func() { k.Pass(1) }))
}

func BenchmarkLeftOut(b *testing.B) {
	l := loglimit.New(nil)
	for b.Loop() {
		l.Printf("connection from %s was not sent here", "192.0.2.1:4000")
	}
}
