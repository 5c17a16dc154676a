//go:build unix

package guest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
)

// Machine code is not taken from where somebody else could have put it: HOME of
// another user, who became root with it, or a folder for everybody.
func TestMachineCodeOfOthersIsNotRun(t *testing.T) {
	mine := t.TempDir()
	dir := filepath.Join(mine, "cache", "wasm")
	require.NoError(t, guest.CheckCacheDir(dir), "it need not exist")
	loadIn(t, dir, "good")
	require.Len(t, meteredFiles(t, dir), 1)

	open := filepath.Join(mine, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	require.ErrorContains(t, guest.CheckCacheDir(filepath.Join(open, "cache")), open+" can be written by everybody")
	loadIn(t, filepath.Join(open, "cache"), "good")
	entries, err := os.ReadDir(open)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is left there")

	link := filepath.Join(mine, "link")
	require.NoError(t, os.Symlink(open, link))
	require.ErrorContains(t, guest.CheckCacheDir(filepath.Join(link, "cache")), "can be written by everybody")
	require.NoError(t, os.Chmod(open, 0o777|os.ModeSticky))
	require.NoError(t, guest.CheckCacheDir(filepath.Join(open, "cache")), "as /tmp is: what is there has owners")

	require.ErrorContains(t, guest.CheckCacheDir(open), open+" can be written by others: a folder in it could be used")
	loadIn(t, open, "good")
	entries, err = os.ReadDir(open)
	require.NoError(t, err)
	require.Empty(t, entries, "nor is anything put beside what others have there")

	if os.Geteuid() != 0 {
		return // Only root gives folders away.
	}
	shared := filepath.Join(mine, "shared")
	require.NoError(t, os.Mkdir(shared, 0o700))
	require.NoError(t, os.Chmod(shared, 0o770))
	require.NoError(t, guest.CheckCacheDir(shared), "the group is the user's own")
	require.NoError(t, os.Chown(shared, 0, 100))
	require.ErrorContains(t, guest.CheckCacheDir(filepath.Join(shared, "cache")), shared+" can be written by group 100")
	theirs := filepath.Join(mine, "home")
	require.NoError(t, os.MkdirAll(filepath.Join(theirs, ".cache"), 0o700))
	require.NoError(t, os.Chown(theirs, 65534, 65534))
	require.ErrorContains(t, guest.CheckCacheDir(filepath.Join(theirs, ".cache", "calloutd")), theirs+" is of user 65534, and this is user 0")
}
