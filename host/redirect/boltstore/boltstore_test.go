package boltstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
	"github.com/calloutd/calloutd/host/redirect/storetest"
	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// hop is what a hop with this serial is in its nth version.
func hop(serial, version uint64) *redirect.Hop {
	h := &redirect.Hop{Serial: serial, FilterID: version, Handle: 3, Provider: "contoso", Callout: "web", TargetPID: 900, ProcessID: 4242,
		Original: netip.MustParseAddrPort("198.51.100.7:443"), Target: netip.MustParseAddrPort("127.0.0.1:8080"), AppID: "/usr/bin/curl"}
	x := serial*0x9E3779B97F4A7C15 + version
	h.Record = make([]byte, 1+x>>32%1000)
	for i := range h.Record {
		h.Record[i] = byte(x>>(i%8)) + byte(i)
	}
	return h
}

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "records.db") }

func open(t testing.TB, o boltstore.Options) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// found opens the file, closes it and returns what was in it, in order.
func found(t testing.TB, path string) (hops []*redirect.Hop) {
	t.Helper()
	s := open(t, boltstore.Options{Path: path, OnRecover: func(h *redirect.Hop) bool {
		hops = append(hops, h)
		return true
	}})
	require.NoError(t, s.Close())
	return hops
}

func TestStore(t *testing.T) {
	for name, d := range map[string]boltstore.Durability{"batched": boltstore.Batched, "none": boltstore.None} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(limit int) redirect.Store {
				return open(t, boltstore.Options{Path: path(t), Durability: d, Memory: arenastore.Options{MaxHops: limit}})
			})
		})
	}
}

// What is in the file is what is in memory, however often it is closed and opened again.
func TestAStoreThatIsOpenedAgainIsAMap(t *testing.T) {
	var o boltstore.Options
	storetest.Model(t, func(limit int) redirect.Store {
		o = boltstore.Options{Path: path(t), Durability: boltstore.None, Memory: arenastore.Options{MaxHops: limit}, Batch: 50}
		return open(t, o)
	}, func(s redirect.Store) redirect.Store {
		require.NoError(t, s.(*boltstore.Store).Close())
		return open(t, o)
	})
}

// Whoever puts hops while the store is closed knows of each whether it is in the file.
func TestCloseWhileInUseLosesNothing(t *testing.T) {
	for range 5 {
		p := path(t)
		s := open(t, boltstore.Options{Path: p, Durability: boltstore.None, Batch: 100})
		var kept, gone sync.Map
		begun := make(chan struct{}, 1)
		var wg sync.WaitGroup
		for w := range uint64(4) {
			wg.Go(func() {
				for i := range uint64(1_000_000) {
					serial := w<<32 + i
					if err := s.Put(hop(serial, 0)); err != nil {
						if !errors.Is(err, redirect.ErrUnavailable) {
							t.Error(err)
						}
						return
					}
					kept.Store(serial, true)
					if i%3 == 0 {
						gone.Store(serial, true) // Or not: after Close it stays in the file.
						if err := s.Release(serial); err != nil {
							t.Error(err)
						}
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		<-begun
		require.NoError(t, s.Close())
		wg.Wait()
		there := map[uint64]bool{}
		for _, h := range found(t, p) {
			there[h.Serial] = true
			_, ok := kept.Load(h.Serial)
			require.True(t, ok, "hop %d was refused", h.Serial)
		}
		kept.Range(func(serial, _ any) bool {
			if _, ok := gone.Load(serial); !ok {
				require.True(t, there[serial.(uint64)], "hop %d is lost", serial)
			}
			return true
		})
	}
}

func TestHopsOutliveTheStore(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	for i := range uint64(100) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Replace(hop(7, 1)))
	require.NoError(t, s.Release(8))
	require.NoError(t, s.Retain(9))
	require.NoError(t, s.Release(9))
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Put(hop(1000, 0)), redirect.ErrUnavailable)

	hops := found(t, p)
	require.Len(t, hops, 99)
	require.Equal(t, hop(0, 0), hops[0])
	require.Equal(t, hop(7, 1), hops[7])
	require.Equal(t, hop(9, 0), hops[8], "8 was given up")
}

// Whoever keeps a hop of an earlier run gives its reference back.
func TestRecoveredHopsHaveOneHolder(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	for i := range uint64(10) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Retain(1))
	require.NoError(t, s.Close())

	s = open(t, boltstore.Options{Path: p, OnRecover: func(h *redirect.Hop) bool { return h.Serial != 5 }})
	require.Equal(t, 9, s.Len())
	require.ErrorIs(t, s.Release(5), redirect.ErrNotFound, "5 was not kept")
	require.NoError(t, s.Release(1))
	require.Equal(t, 8, s.Len())
	require.NoError(t, s.Close())
	require.Len(t, found(t, p), 8)
}

// Serials of different runs differ, so that a hop of one cannot be taken for one
// of the other.
func TestSerialsAreNotUsedAgain(t *testing.T) {
	p := path(t)
	given := map[uint64]bool{}
	for range 3 {
		s := open(t, boltstore.Options{Path: p})
		for range 100 {
			serial := s.NewSerial()
			require.False(t, given[serial])
			given[serial] = true
			require.NoError(t, s.Put(hop(serial, 0)))
			require.NoError(t, s.Release(serial))
		}
		require.NoError(t, s.Put(hop(s.NewSerial(), 0)))
		require.NoError(t, s.Close())
	}
	require.Len(t, found(t, p), 3)
}

// AMB-15: the file keeps the key of the seal from run to run; another file has another
// one, and a file that others may use is not trusted with it.
func TestTheKeyOfTheSealIsTheFiles(t *testing.T) {
	key := func(p string) redirect.SealKey {
		s := open(t, boltstore.Options{Path: p})
		defer func() { require.NoError(t, s.Close()) }()
		return s.SealKey()
	}
	p := path(t)
	first := key(p)
	require.Equal(t, first, key(p))
	require.NotEqual(t, first, key(path(t)))
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(p)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	require.NoError(t, os.Chmod(p, 0o640))
	_, err = boltstore.Open(boltstore.Options{Path: p})
	require.ErrorContains(t, err, "others may use it (mode -rw-r-----)")
	require.NoError(t, os.Chmod(p, 0o600))
	require.Equal(t, first, key(p))
}

// What Put acknowledges is on disk before it returns: a copy of the file has it.
func TestSyncIsOnDiskWhenItReturns(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p, Durability: boltstore.Sync})
	var wg sync.WaitGroup
	for i := range uint64(20) {
		wg.Go(func() {
			if err := s.Put(hop(i, 0)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Replace(hop(3, 1)))
	require.Zero(t, s.Behind())
	b, err := os.ReadFile(p)
	require.NoError(t, err)
	other := path(t)
	require.NoError(t, os.WriteFile(other, b, 0o600))
	hops := found(t, other)
	require.Len(t, hops, 20)
	require.Equal(t, hop(3, 1), hops[3])
}

// What nobody waits for is on disk after an interval, or once there is a batch of it.
func TestBatchedIsOnDiskInTheEnd(t *testing.T) {
	for name, o := range map[string]boltstore.Options{
		"after an interval": {Interval: time.Millisecond, Batch: 1000},
		"a batch":           {Interval: time.Hour, Batch: 2},
	} {
		t.Run(name, func(t *testing.T) {
			o.Path = path(t)
			s := open(t, o)
			for serial := range uint64(6) {
				require.NoError(t, s.Put(hop(serial, 0)))
				if o.Batch > 2 || serial%2 == 1 {
					require.Eventually(t, func() bool { return s.Behind() == 0 }, time.Minute, time.Millisecond)
				}
			}
		})
	}
}

// A disk that does not keep up is a reason to refuse, and nothing else: every hop
// that was taken stays, and giving hops up goes on.
func TestAFullQueueRefuses(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p, Queue: 10, Batch: 100, Interval: time.Hour})
	for i := range uint64(10) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	err := s.Put(hop(10, 0))
	require.ErrorIs(t, err, redirect.ErrUnavailable)
	require.ErrorContains(t, err, "10 changes wait for the disk, the limit; the disk is too slow for so many redirects")
	require.ErrorIs(t, s.Release(10), redirect.ErrNotFound, "what is refused is not there")
	require.NoError(t, s.Release(0))
	require.Equal(t, 9, s.Len())
	require.NoError(t, s.Flush(t.Context()))
	require.Zero(t, s.Behind())
	require.False(t, s.Asked(), "the next ones wait for others again")
	require.NoError(t, s.Put(hop(10, 0)))
	require.NoError(t, s.Close())
	require.Len(t, found(t, p), 10)
}

func TestFlushEndsWithItsContext(t *testing.T) {
	s := open(t, boltstore.Options{Path: path(t), Interval: time.Hour})
	require.NoError(t, s.Flush(t.Context()), "there is nothing to wait for")
	entered, leave := make(chan struct{}), make(chan struct{})
	boltstore.SetAt(func(point string) {
		if point == "batch written" {
			close(entered)
			<-leave
		}
	})
	defer boltstore.SetAt(func(string) {})
	require.NoError(t, s.Put(hop(1, 0)))
	ctx, cancel := context.WithCancel(t.Context())
	flushed := make(chan error)
	go func() { flushed <- s.Flush(ctx) }()
	<-entered
	cancel()
	require.ErrorIs(t, <-flushed, context.Canceled)
	close(leave)
	require.NoError(t, s.Close())
}

func TestAFileBelongsToOneProcess(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	_, err := boltstore.Open(boltstore.Options{Path: p})
	require.EqualError(t, err, fmt.Sprintf("boltstore: %s: another process has it open", p))
	require.ErrorIs(t, err, filelock.ErrLocked)
	require.NoError(t, s.Close())
	require.Empty(t, found(t, p))
}

func TestMoreHopsThanTheLimitAreNotCutOff(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	for i := range uint64(20) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Close())
	_, err := boltstore.Open(boltstore.Options{Path: p, Memory: arenastore.Options{MaxHops: 10}})
	require.ErrorIs(t, err, redirect.ErrFull)
	require.ErrorContains(t, err, "raise the limit")
	require.Len(t, found(t, p), 20)
}

func TestAFileWithoutSerialsIsRefused(t *testing.T) {
	p := path(t)
	require.NoError(t, open(t, boltstore.Options{Path: p}).Close())
	edit(t, p, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("about")).Put([]byte("run"), boltstore.Checked("run", binary.BigEndian.AppendUint64(nil, 1<<16-1)))
	})
	_, err := boltstore.Open(boltstore.Options{Path: p})
	require.ErrorContains(t, err, "it was opened 65535 times and has no serials for one more; begin a new file")
}

func TestANewerFormatIsRefused(t *testing.T) {
	p := path(t)
	require.NoError(t, open(t, boltstore.Options{Path: p}).Close())
	edit(t, p, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("about")).Put([]byte("calloutd redirect records"), binary.BigEndian.AppendUint64(nil, 2))
	})
	_, err := boltstore.Open(boltstore.Options{Path: p})
	require.ErrorContains(t, err, "its format is version 2, this program reads 1")
}

// edit changes a file as if the store had: what it says of its hops is of the newest
// transaction.
func edit(t *testing.T, path string, f func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		about := tx.Bucket([]byte("about"))
		state := append([]byte(nil), about.Get([]byte("hops"))[:16]...)
		return about.Put([]byte("hops"), boltstore.Checked("hops", binary.BigEndian.AppendUint64(state, uint64(tx.ID()))))
	}))
	require.NoError(t, db.Close())
}

// A file that shrinks gives the disk back, while the store goes on.
func TestAFileIsMadeSmaller(t *testing.T) {
	boltstore.SetCompactFrom(1 << 20)
	defer boltstore.SetCompactFrom(16 << 20)
	p := path(t)
	s := open(t, boltstore.Options{Path: p, Durability: boltstore.None})
	const n = 3000
	for i := range uint64(n) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Flush(t.Context()))
	large := size(t, p)
	for i := range uint64(n - 10) {
		require.NoError(t, s.Release(i))
	}
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.Put(hop(n, 0)))
	require.NoError(t, s.Close())
	require.Less(t, size(t, p), large/4)
	hops := found(t, p)
	require.Len(t, hops, 11)
	require.Equal(t, hop(n, 0), hops[10])
}

// shrunk is a store whose file should be made smaller, and does not have the room.
func shrunk(t *testing.T, inTheWay func(path string) string) (s *boltstore.Store, p string) {
	boltstore.SetCompactFrom(1 << 20)
	defer boltstore.SetCompactFrom(16 << 20)
	p = path(t)
	s = open(t, boltstore.Options{Path: p, Durability: boltstore.None})
	const n = 3000
	for i := range uint64(n) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, os.MkdirAll(filepath.Join(inTheWay(p), "full"), 0o700))
	for i := range uint64(n - 10) {
		require.NoError(t, s.Release(i))
	}
	_ = s.Flush(t.Context()) // Making it smaller is not what it waits for.
	return s, p
}

func TestAFileThatCannotBeMadeSmallerStays(t *testing.T) {
	s, p := shrunk(t, func(path string) string { return path + ".new" })
	require.NoError(t, s.Put(hop(5000, 0)))
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(p+".new"))
	require.Len(t, found(t, p), 11)
}

// Memory has everything: a file that is lost under way is made again.
func TestAFileThatIsLostIsMadeAgain(t *testing.T) {
	s, p := shrunk(t, func(path string) string {
		require.NoError(t, os.Remove(path))
		return path
	})
	_ = s.Put(hop(5000, 0)) // Whether the writer knows already is its own affair.
	require.ErrorContains(t, s.Flush(t.Context()), "rename")
	err := s.Put(hop(5001, 0))
	require.ErrorIs(t, err, redirect.ErrUnavailable)
	require.ErrorContains(t, err, "rename")
	require.NoError(t, os.RemoveAll(p))
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.Put(hop(5002, 0)))
	require.NoError(t, s.Close())
	hops := found(t, p)
	require.Equal(t, hop(5002, 0), hops[len(hops)-1])
	require.Equal(t, hop(2990, 0), hops[0])
}

func size(t *testing.T, path string) int64 {
	i, err := os.Stat(path)
	require.NoError(t, err)
	return i.Size()
}

// What keeps others out is the lock beside the file; without it, and by another name, bbolt
// knows a file that is open.
func TestAFileThatIsOpenIsFoundByAnyName(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	refused := func(name string) {
		_, err := boltstore.Open(boltstore.Options{Path: name})
		require.ErrorContains(t, err, ": another process has it open")
	}
	link := filepath.Join(filepath.Dir(p), "link.db")
	require.NoError(t, os.Link(p, link))
	refused(link)
	if runtime.GOOS != "windows" { // Links need a privilege there, and what is open stays.
		link := filepath.Join(t.TempDir(), "link.db")
		require.NoError(t, os.Symlink(p, link))
		refused(link)
		require.NoError(t, os.Remove(filepath.Join(filepath.Dir(p), "."+filepath.Base(p)+".lock")))
		refused(p)
	}
	require.NoError(t, s.Close())
}

// A link to a file stays one: the file may be where there is room.
func TestALinkStaysOne(t *testing.T) {
	p, link := path(t), path(t)
	if err := os.Symlink(p, link); runtime.GOOS == "windows" && err != nil {
		t.Skip("links need a privilege there: ", err)
	}
	require.NoError(t, open(t, boltstore.Options{Path: p}).Close())
	s := open(t, boltstore.Options{Path: link})
	require.NoError(t, s.Put(hop(1, 0)))
	require.NoError(t, s.Close())
	to, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, p, to)
	require.Len(t, found(t, p), 1)
}

func TestOnlyAFileIsOpened(t *testing.T) {
	_, err := boltstore.Open(boltstore.Options{})
	require.EqualError(t, err, "boltstore: Options.Path is required")
	_, err = boltstore.Open(boltstore.Options{Path: t.TempDir()})
	require.ErrorContains(t, err, "it is no file (mode d")
}

// RED-SIO-03: what was promised of a connection is not changed in a store that keeps
// nothing any more.
func TestAClosedStoreReplacesNothing(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	require.NoError(t, s.Put(hop(1, 0)))
	require.NoError(t, s.Close())
	require.ErrorContains(t, s.Put(hop(2, 0)), "closed")
	require.ErrorContains(t, s.Replace(hop(1, 9)), "closed")
	require.Equal(t, []*redirect.Hop{hop(1, 0)}, found(t, p))
}
