//go:build unix

package boltstore_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// What somebody does to the file of a store that has it open is a reason to refuse; the
// next write makes it anew from memory. Windows lets nobody do that.
func TestAFileThatSomebodyTookAwayIsMadeAgain(t *testing.T) {
	for reason, take := range map[string]func(t *testing.T, path string){
		"no such file or directory": func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"damaged: another file is in its place": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".copy", b, 0o600))
			require.NoError(t, os.Rename(path+".copy", path))
		},
		"damaged: somebody cut it from": func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) },
	} {
		for _, d := range []boltstore.Durability{boltstore.Batched, boltstore.Sync} {
			t.Run(fmt.Sprint(reason, " ", d), func(t *testing.T) {
				p := path(t)
				s := open(t, boltstore.Options{Path: p, Durability: d, Interval: time.Hour}) // It writes when somebody waits.
				for i := range uint64(50) {
					require.NoError(t, s.Put(hop(i, 0)))
				}
				require.NoError(t, s.Flush(t.Context()))
				take(t, p)
				err := s.Put(hop(50, 0))
				if d == boltstore.Batched {
					require.NoError(t, err, "it waits for nothing")
					err = s.Flush(t.Context())
				} else {
					require.ErrorIs(t, err, redirect.ErrUnavailable)
				}
				require.ErrorContains(t, err, reason)
				require.NoError(t, s.Flush(t.Context()))
				require.False(t, s.Asked(), "the next ones wait for others again")
				require.NoError(t, s.Put(hop(51, 0)))
				kept := s.Len()
				require.NoError(t, s.Close())
				require.Len(t, found(t, p), kept)
			})
		}
	}
}

// A folder that is gone takes the lock with it. Where another process has made a file there
// since, it is that one's: the first one waits for it, and neither writes over the other's.
func TestAFolderThatVanishesIsWaitedFor(t *testing.T) {
	p := filepath.Join(t.TempDir(), "records", "records.db")
	require.NoError(t, os.Mkdir(filepath.Dir(p), 0o700))
	first := open(t, boltstore.Options{Path: p})
	require.NoError(t, first.Put(hop(1, 0)))
	require.NoError(t, first.Flush(t.Context()))
	require.NoError(t, os.RemoveAll(filepath.Dir(p)))
	require.NoError(t, first.Put(hop(2, 0)))
	for range 2 {
		require.ErrorIs(t, first.Flush(t.Context()), fs.ErrNotExist)
		require.ErrorIs(t, first.Put(hop(3, 0)), redirect.ErrUnavailable)
	}
	require.NoError(t, os.Mkdir(filepath.Dir(p), 0o700))
	// The first one may be there before the second one is: it tries each second.
	second, err := boltstore.Open(boltstore.Options{Path: p})
	if err == nil {
		require.NoError(t, second.Put(hop(9, 0)))
		require.NoError(t, second.Flush(t.Context()))
		require.ErrorIs(t, first.Flush(t.Context()), filelock.ErrLocked)
		require.ErrorIs(t, first.Put(hop(3, 0)), filelock.ErrLocked)
		require.NoError(t, second.Put(hop(10, 0)))
		require.NoError(t, second.Close())
	} else {
		require.ErrorIs(t, err, filelock.ErrLocked)
	}
	require.NoError(t, first.Flush(t.Context()))
	require.NoError(t, first.Put(hop(3, 0)))
	require.NoError(t, first.Close())
	require.Len(t, found(t, p), 3)
}

// Who closes a store whose folder is gone is told how much is lost with it, and who waits
// after that does not wait for ever.
func TestACloseThatCannotWriteSaysWhatIsLost(t *testing.T) {
	p := filepath.Join(t.TempDir(), "records", "records.db")
	require.NoError(t, os.Mkdir(filepath.Dir(p), 0o700))
	s := open(t, boltstore.Options{Path: p, Interval: time.Hour})
	require.NoError(t, os.RemoveAll(filepath.Dir(p)))
	for i := range uint64(3) {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	for range 2 {
		err := s.Close()
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "3 changes are not on disk")
	}
	require.ErrorIs(t, s.Flush(t.Context()), redirect.ErrUnavailable)
}

// What was mended before Flush was called is no reason for it to fail: the write that was
// under way then may have begun before.
func TestFlushIsNotToldOfAWriteThatBeganBeforeIt(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p, Interval: time.Hour})
	begun, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	boltstore.SetAt(func(point string) {
		if point == "batch begun" {
			once.Do(func() {
				close(begun)
				<-on
				panic("it fails")
			})
		}
	})
	defer boltstore.SetAt(func(string) {})
	require.NoError(t, s.Put(hop(1, 0)))
	first := make(chan error)
	go func() { first <- s.Flush(t.Context()) }()
	<-begun
	second := make(chan error)
	go func() { second <- s.Flush(t.Context()) }()
	require.Eventually(t, s.Asked, time.Minute, time.Millisecond)
	close(on)
	require.NoError(t, <-second)
	if err := <-first; err != nil { // The next write may be done before it looks.
		require.ErrorContains(t, err, "it fails")
	}
}

// A page that cannot be read in the middle of a write ends the write and not the process,
// and nothing waits for what it held.
func TestAPageThatCannotBeReadEndsTheWrite(t *testing.T) {
	for _, left := range []int64{0, 2, 3, 5} {
		t.Run(fmt.Sprint(left, " pages are left"), func(t *testing.T) {
			p := path(t)
			s := open(t, boltstore.Options{Path: p, Interval: time.Hour})
			for i := range uint64(200) {
				require.NoError(t, s.Put(hop(i, 0)))
			}
			require.NoError(t, s.Flush(t.Context()))
			var once sync.Once
			boltstore.SetAt(func(point string) {
				if point == "batch begun" {
					once.Do(func() { require.NoError(t, os.Truncate(p, left*int64(os.Getpagesize()))) })
				}
			})
			defer boltstore.SetAt(func(string) {})
			require.NoError(t, s.Release(100))
			require.ErrorIs(t, s.Flush(t.Context()), boltstore.ErrDamaged)
			require.NoError(t, s.Flush(t.Context()))
			require.NoError(t, s.Close())
			require.Len(t, found(t, p), 199)
		})
	}
}
