package arenastore_test

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/internal/percore"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/storetest"
)

// breathing is what an empty store may keep, but for a slab of each shard.
const breathing = 5 << 20

func TestStore(t *testing.T) {
	eachMemory(t, func(t *testing.T, open func(arenastore.Options) *arenastore.Store) {
		storetest.Run(t, func(limit int) redirect.Store { return open(arenastore.Options{MaxHops: limit}) })
	})
}

// eachMemory runs a test with mmap, which the race detector does not see, and without.
func eachMemory(t *testing.T, f func(t *testing.T, open func(arenastore.Options) *arenastore.Store)) {
	for name, open := range arenastore.Memories {
		t.Run(name, func(t *testing.T) { f(t, open) })
	}
}

func TestAStoreWithLittleMemoryIsAMap(t *testing.T) {
	storetest.Model(t, func(limit int) redirect.Store {
		return arenastore.New(arenastore.Options{MaxHops: limit, MaxBytes: 256 << 10})
	}, nil)
}

// Whoever lists the hops while others come and go, and move for it, has each that was there
// all the time, once.
func TestTheListOfAStoreInUseIsComplete(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	stay := map[uint64]bool{}
	var pass []uint64
	for i := range uint64(3000) {
		serial := s.NewSerial()
		require.NoError(t, s.Put(hop(serial)))
		if i%3 == 0 {
			stay[serial] = true
		} else {
			pass = append(pass, serial)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, f := range []func(uint64) error{s.Release, func(serial uint64) error { return s.Put(hop(serial)) }} {
				for _, serial := range pass {
					if err := f(serial); err != nil {
						t.Error(err)
					}
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 100 {
		listed := map[uint64]bool{}
		for _, serial := range s.Serials() {
			require.False(t, listed[serial], "hop %d is listed twice", serial)
			listed[serial] = true
		}
		for serial := range stay {
			require.True(t, listed[serial], "hop %d is not listed", serial)
		}
	}
	close(done)
	wg.Wait()
	require.NoError(t, s.Check())
}

// Who asks for a hop that was put long ago gets the same as who asks at once.
func TestOldHopsComeBackFromTheirBytes(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	const n = 5000
	for i := range uint64(n) {
		require.NoError(t, s.Put(hop(i)))
	}
	for i := range uint64(n) {
		got, err := s.Acquire(i)
		require.NoError(t, err)
		require.Equal(t, hop(i), got)
	}
	require.NoError(t, s.Check())
}

// A proxy that asks for a hop soon after it was made costs no copy.
func TestANewHopIsSharedWithWhoPutIt(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	h, replaced := hop(1), hop(1)
	require.NoError(t, s.Put(h))
	got, err := s.Acquire(1)
	require.NoError(t, err)
	require.Same(t, h, got)
	require.NoError(t, s.Replace(replaced))
	got, err = s.Acquire(1)
	require.NoError(t, err)
	require.Same(t, replaced, got)
}

// Whatever goes wrong, a hop does not answer for another one.
func TestASlotKnowsItsHop(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	require.NoError(t, s.Put(hop(1)))
	s.Overwrite(1, 2)
	_, err := s.Acquire(1)
	require.ErrorIs(t, err, redirect.ErrNotFound)
	_, err = s.AppendEncoded(nil, 1)
	require.ErrorContains(t, err, "hop 2 is in the slot of hop 1")
}

func TestTheLimitOfHopsIsExact(t *testing.T) {
	s := arenastore.New(arenastore.Options{MaxHops: 100})
	for i := range uint64(100) {
		require.NoError(t, s.Put(&redirect.Hop{Serial: i}))
	}
	err := s.Put(&redirect.Hop{Serial: 100})
	require.ErrorIs(t, err, redirect.ErrFull)
	require.ErrorContains(t, err, "100 hops are live, the limit; raise the limit")
}

func TestTheLimitOfMemoryRefuses(t *testing.T) {
	s := arenastore.New(arenastore.Options{MaxBytes: 1 << 20})
	large := func(i int) *redirect.Hop {
		return &redirect.Hop{Serial: uint64(i), Record: blob, Context: blob}
	}
	n := 0
	var err error
	for ; err == nil; n++ {
		err = s.Put(large(n))
	}
	n--
	require.ErrorIs(t, err, redirect.ErrFull)
	require.ErrorContains(t, err, "the hops take 1024 KiB, the limit; raise the limit of memory")
	require.Equal(t, n, s.Len())
	require.ErrorIs(t, s.Replace(&redirect.Hop{Serial: 1, Record: []byte{1}}), redirect.ErrFull, "there is no slab for another size")
	got, err := s.Acquire(1)
	require.NoError(t, err)
	require.Equal(t, large(1), got, "what is not replaced stays")
	require.NoError(t, s.Release(1))
	for i := range n {
		require.NoError(t, s.Release(uint64(i)))
	}
	require.NoError(t, s.Put(&redirect.Hop{Serial: 1, Record: []byte{1}}), "what was given up makes room, for other sizes too")
	require.NoError(t, s.Check())
}

// A shard that loses its last hop keeps the slab for the next one, and takes nothing
// from the others; where they need it, it is theirs.
func TestASpareSlabIsForWhoeverNeedsIt(t *testing.T) {
	const slab = 16 << 10
	shards := arenastore.New(arenastore.Options{}).Shards()
	s := arenastore.Memories["system"](arenastore.Options{MaxBytes: int64(shards) * slab})
	if !s.DropsPages() {
		require.NotEqual(t, "linux", runtime.GOOS, "pages can be given back there")
		t.Skip("memory goes back by the region: no slab is kept")
	}
	for range 3 {
		for i := range shards {
			require.NoError(t, s.Put(&redirect.Hop{Serial: uint64(i)}))
			require.NoError(t, s.Release(uint64(i)))
		}
		require.Equal(t, shards, s.Spares())
		require.EqualValues(t, shards*slab, s.Memory())
		require.NoError(t, s.Check())
	}
	one := func(i int) *redirect.Hop { // as large as a slab, all of one shard
		return &redirect.Hop{Serial: uint64(i * shards), AppID: strings.Repeat("a", 9<<10)}
	}
	for i := range shards {
		require.NoError(t, s.Put(one(i)))
	}
	require.Zero(t, s.Spares())
	require.ErrorIs(t, s.Put(one(shards)), redirect.ErrFull)
	require.NoError(t, s.Check())
}

// Serials that a core gets one after the other are where the processor waits for one of
// them.
func TestSerialsInARowAreNeighboursInTheIndex(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	for i := range uint64(10_000) { // Tables have room.
		require.NoError(t, s.Put(&redirect.Hop{Serial: i << percore.ShardBits}))
	}
	type line struct{ shard, table, line int }
	lines := map[line]int{}
	for i := range uint64(4096) {
		var l line
		l.shard, l.table, l.line = s.Line(i << percore.ShardBits)
		if lines[l]++; i%4 > 0 {
			var before line
			before.shard, before.table, before.line = s.Line((i - 1) << percore.ShardBits)
			require.Equal(t, before, l)
		}
	}
	require.Greater(t, len(lines), 512, "others are elsewhere")
	require.NoError(t, s.Check())
}

// What was removed from the index makes room in it.
func TestTheIndexOfHopsThatComeAndGoDoesNotGrow(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	const live, more = 20_000, 60_000
	serial := func(i uint64) uint64 { return i * uint64(s.Shards()) } // all of one shard
	for i := range uint64(live) {
		require.NoError(t, s.Put(&redirect.Hop{Serial: serial(i)}))
	}
	most := 2 * s.Entries()
	for i := range uint64(more) {
		require.NoError(t, s.Release(serial(i)))
		require.NoError(t, s.Put(&redirect.Hop{Serial: serial(i + live)}))
		if i%10_000 == 0 {
			require.NoError(t, s.Check())
		}
	}
	require.LessOrEqual(t, s.Entries(), most)
	for i := range uint64(live) {
		require.NoError(t, s.Release(serial(i+more)))
	}
	require.NoError(t, s.Check())
	require.Zero(t, s.Len())
	require.LessOrEqual(t, s.Entries(), most/100)
}

// The tables of a large index are in memory of the system, which goes back as they get
// smaller.
func TestALargeIndexIsInSheets(t *testing.T) { eachMemory(t, aLargeIndexIsInSheets) }

func aLargeIndexIsInSheets(t *testing.T, open func(arenastore.Options) *arenastore.Store) {
	s := open(arenastore.Options{})
	n := fillShard(t, s, 0, 60_000) // Each of 64 tables has 2,048 entries: 32 KiB.
	require.Equal(t, 1, s.Sheets())
	n = fillShard(t, s, n, 120_000)
	require.Equal(t, 2, s.Sheets())
	emptyShard(t, s, 0, n-(32<<10)) // Some tables are small now, and grow again to where others were.
	require.Equal(t, 3, s.Sheets())
	fillShard(t, s, n, 2*n-(32<<10))
	require.Equal(t, 2, s.Sheets())
	emptyShard(t, s, n-(32<<10), 2*n-(32<<10))
	require.Zero(t, s.Sheets())
	require.NoError(t, s.Check())
}

func TestAnIndexWithoutSheetsIsOnTheHeap(t *testing.T) {
	s := arenastore.NoSheets(arenastore.Options{})
	fillShard(t, s, 0, 60_000)
	require.Zero(t, s.Sheets())
}

// fillShard puts hops of one shard until it has n.
func fillShard(t *testing.T, s *arenastore.Store, have, n uint64) uint64 {
	for i := have; i < n; i++ {
		require.NoError(t, s.Put(&redirect.Hop{Serial: i * uint64(s.Shards())}))
	}
	require.NoError(t, s.Check())
	return n
}

func emptyShard(t *testing.T, s *arenastore.Store, from, to uint64) {
	for i := from; i < to; i++ {
		require.NoError(t, s.Release(i*uint64(s.Shards())))
	}
	require.NoError(t, s.Check())
}

func TestAHopThatIsTooLargeIsRefused(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	h := &redirect.Hop{Serial: 1, AppID: strings.Repeat("a", 16<<10)}
	require.ErrorIs(t, s.Put(h), redirect.ErrTooLarge)
	require.ErrorContains(t, s.Put(h), "16432 bytes, at most 16380 can be kept")
	require.ErrorIs(t, s.Put(&redirect.Hop{Record: make([]byte, redirect.MaxBlob+1)}), redirect.ErrTooLarge)
	require.Zero(t, s.Len())
	h.AppID = h.AppID[:16380-48]
	require.NoError(t, s.Put(h))
	require.ErrorIs(t, s.Replace(&redirect.Hop{Serial: 1, AppID: strings.Repeat("a", 16<<10)}), redirect.ErrTooLarge)
}

// A count of holders that wraps would give a slot to two hops.
func TestHoldersAreCountedToTheEnd(t *testing.T) {
	s := arenastore.New(arenastore.Options{})
	require.NoError(t, s.Put(&redirect.Hop{Serial: 1}))
	s.SetReferences(1, arenastore.MaxReferences)
	require.ErrorIs(t, s.Retain(1), redirect.ErrFull)
	_, err := s.Acquire(1)
	require.ErrorContains(t, err, "hop 1 has 16777215 references")
	require.NoError(t, s.Release(1))
	require.NoError(t, s.Retain(1))
}

// Hops come and go for as long as one likes; memory is what the live ones need.
func TestChurnKeepsMemoryFlat(t *testing.T) { eachMemory(t, churnKeepsMemoryFlat) }

func churnKeepsMemoryFlat(t *testing.T, open func(arenastore.Options) *arenastore.Store) {
	const live = 5000
	s := open(arenastore.Options{})
	rnd := rand.New(rand.NewPCG(7, 7))
	serials, next := make([]uint64, live), uint64(0)
	put := func(i int) {
		next++
		require.NoError(t, s.Put(hop(next)))
		serials[i] = next
	}
	for i := range serials {
		put(i)
	}
	after := s.Memory()
	most := after
	for range 6 {
		for range live {
			i := rnd.IntN(live)
			require.NoError(t, s.Release(serials[i]))
			put(i)
		}
		most = max(most, s.Memory())
	}
	require.LessOrEqual(t, most, after*5/4+breathing, "%d at first", after)
	require.Equal(t, live, s.Len())
	require.NoError(t, s.Check())
	t.Logf("%d hops came and went; memory was at most %.3f of what it was after %d", next, float64(most)/float64(after), live)
}

func TestMemoryGoesBackWhenTheStoreShrinks(t *testing.T) {
	eachMemory(t, memoryGoesBackWhenTheStoreShrinks)
}

func memoryGoesBackWhenTheStoreShrinks(t *testing.T, open func(arenastore.Options) *arenastore.Store) {
	s := open(arenastore.Options{})
	const n = 20_000
	hop := func(serial uint64) *redirect.Hop { return &redirect.Hop{Serial: serial, Record: blob[:500]} }
	for i := range uint64(n) {
		require.NoError(t, s.Put(hop(i)))
	}
	full := s.Memory()
	order := rand.New(rand.NewPCG(3, 3)).Perm(n)
	for i, serial := range order[:n*9/10] {
		require.NoError(t, s.Release(uint64(serial)))
		if i%5000 == 0 {
			require.NoError(t, s.Check())
		}
	}
	if s.DropsPages() { // Elsewhere memory goes back by the region.
		require.Less(t, s.Memory(), full/4+breathing, "a tenth is left")
	}
	for _, serial := range order[n*9/10:] {
		got, err := s.Acquire(uint64(serial))
		require.NoError(t, err)
		require.Equal(t, hop(uint64(serial)), got, "a hop that was moved is the same")
		require.NoError(t, s.Release(uint64(serial)))
		require.NoError(t, s.Release(uint64(serial)))
	}
	require.NoError(t, s.Check())
	require.LessOrEqual(t, s.Memory(), int64(breathing), "a tenth is left")
}

// Free slabs among used ones go back by their pages.
func TestMemoryGoesBackFromBetween(t *testing.T) {
	s := arenastore.Memories["system"](arenastore.Options{})
	const n = 20_000
	for i := range uint64(n) {
		require.NoError(t, s.Put(&redirect.Hop{Serial: i, Record: blob[:400+i%2*200]}))
	}
	full := s.Memory()
	for i := range uint64(n / 2) {
		require.NoError(t, s.Release(2*i+1))
	}
	if s.DropsPages() {
		require.Less(t, s.Memory(), full/2+breathing)
	}
	require.NoError(t, s.Check())
}

func TestMemoryGoesBackWithTheStore(t *testing.T) { eachMemory(t, memoryGoesBackWithTheStore) }

func memoryGoesBackWithTheStore(t *testing.T, open func(arenastore.Options) *arenastore.Store) {
	s := open(arenastore.Options{})
	for i := range uint64(1000) {
		require.NoError(t, s.Put(hop(i)))
	}
	pool := s.Pool()
	require.NotZero(t, pool.Memory())
	runtime.KeepAlive(s)
	for range 1000 {
		if runtime.GC(); pool.Memory() == 0 {
			return
		}
	}
	t.Fatal("the memory of a store that is gone was never given back")
}
