//go:build !windows

package filelock

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// On Windows nobody removes what is open.

// Somebody who removes the lock lets another process in; neither takes it from the other.
func TestWhoeverHasAFileNowKeepsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	make := func() { require.NoError(t, os.Mkdir(dir, 0o700)) }
	make()
	first, err := Own(filepath.Join(dir, "records.db"))
	require.NoError(t, err)
	require.NoError(t, first.Keep())
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorIs(t, first.Keep(), fs.ErrNotExist)
	make()
	require.NoError(t, first.Keep())
	_, err = Own(first.path)
	require.Equal(t, ErrLocked, err)

	require.NoError(t, os.RemoveAll(dir))
	make()
	second, err := Own(first.path)
	require.NoError(t, err)
	require.Equal(t, ErrLocked, first.Keep())
	first.Release()
	_, err = Own(first.path)
	require.Equal(t, ErrLocked, err, "what the first one had is gone already")
	second.Release()
	third, err := Own(first.path)
	require.NoError(t, err)
	third.Release()
}
