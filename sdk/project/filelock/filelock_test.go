package filelock

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// Each reads the file and replaces it by one that is longer by a byte.
func TestNoChangeIsLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	const workers, times = 8, 10
	errs := make(chan error, workers*times)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range times {
				errs <- lengthen(t.Context(), path)
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, got, workers*times)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "a lock is left")
}

func lengthen(ctx context.Context, path string) error {
	unlock, err := Lock(ctx, path, nil)
	if err != nil {
		return err
	}
	defer unlock()
	was, err := wholefile.Read(path)
	if err != nil {
		return err
	}
	return wholefile.Write(path, append(was, '.'))
}

// Who has to wait is told so, and may give up.
func TestWaitingIsToldAndEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	unlock, err := Lock(t.Context(), path, func() { t.Error("nobody has it") })
	require.NoError(t, err)
	ctx, giveUp := context.WithCancel(t.Context())
	_, err = Lock(ctx, path, giveUp)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, path+" cannot be locked: ")

	waits, locked := make(chan struct{}), make(chan error)
	go func() {
		second, err := Lock(t.Context(), path, func() { close(waits) })
		if err == nil {
			second()
		}
		locked <- err
	}()
	<-waits
	unlock()
	require.NoError(t, <-locked)

	_, err = Lock(t.Context(), filepath.Dir(path), nil)
	require.EqualError(t, err, filepath.Dir(path)+" is a folder: expected a file")
	none := filepath.Join(filepath.Dir(path), "none", "policy.yaml")
	_, err = Lock(t.Context(), none, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "open "+none+":")
}

func TestALinkIsLockedAsTheFileThatItNames(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "link.yaml")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	if err := os.Symlink("policy.yaml", link); runtime.GOOS == "windows" && err != nil {
		t.Skip("links need a privilege there: ", err)
	} else {
		require.NoError(t, err)
	}
	unlock, err := Lock(t.Context(), path, nil)
	require.NoError(t, err)
	defer unlock()
	ctx, giveUp := context.WithCancel(t.Context())
	_, err = Lock(ctx, link, giveUp)
	require.ErrorIs(t, err, context.Canceled)
}

// The lock is not another user's to take, and is gone with the unlock.
func TestAnOwnedFileIsHadOrNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	owned, err := Own(path)
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	info, err := entries[0].Info()
	require.NoError(t, err)
	if runtime.GOOS != "windows" { // It has no modes.
		require.Equal(t, fs.FileMode(0o600), info.Mode())
	}
	_, err = Own(path)
	require.Equal(t, ErrLocked, err)
	owned.Release()
	again, err := Own(path)
	require.NoError(t, err)
	again.Release()
	entries, err = os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// Who gives a file up twice does not take it from the one who has it by then.
func TestAFileIsGivenUpOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	first, err := Own(path)
	require.NoError(t, err)
	first.Release()
	second, err := Own(path)
	require.NoError(t, err)
	first.Release()
	_, err = Own(path)
	require.ErrorIs(t, err, ErrLocked)
	second.Release()
	third, err := Own(path)
	require.NoError(t, err)
	third.Release()
}
