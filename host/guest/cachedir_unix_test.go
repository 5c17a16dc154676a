//go:build unix

package guest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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

	refused := open + " can be written by others: a folder in it could be used"
	require.ErrorContains(t, guest.CheckCacheDir(open), refused)
	require.Equal(t, []string{"compiled modules are not kept: " + refused}, loadIn(t, open, "good"))
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

// What is in the place of a file makes nobody wait, nor is more of it read than a file has.
func TestWhatIsNoFileInTheCache(t *testing.T) {
	other := t.TempDir()
	for name, put := range map[string]func(file string) error{
		"pipe":            func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"endless":         func(file string) error { return os.Symlink("/dev/zero", file) },
		"link to nothing": func(file string) error { return os.Symlink("nothing", file) },
		"link to another": func(file string) error {
			return errors.Join(os.WriteFile(filepath.Join(other, "other"), nil, 0o600), os.Symlink(filepath.Join(other, "other"), file))
		},
		"folder": func(file string) error { return os.Mkdir(file, 0o700) },
		"giant": func(file string) error {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(file, 1<<42)
		},
	} {
		t.Run(name, func(t *testing.T) {
			wreck(t, func(t *testing.T, file string, _ []byte) {
				require.NoError(t, os.Remove(file))
				require.NoError(t, put(file))
			})
		})
	}
}

// Processes that begin at once with an empty cache, some of which are killed wherever they are,
// leave one that is whole, and little else.
func TestManyProcessesHaveOneCache(t *testing.T) {
	const in = "CALLOUTD_TEST_CACHE"
	if dir := os.Getenv(in); dir != "" {
		for _, name := range []string{"good", "bad", "host"} {
			require.Empty(t, loadIn(t, dir, name))
		}
		return
	}
	dir, elsewhere := t.TempDir(), t.TempDir() // Who is killed leaves its own.
	inside := filepath.Join(dir, guest.CacheVersion())
	for round := range 4 {
		require.NoError(t, os.RemoveAll(inside))
		var all sync.WaitGroup
		for k := range 8 {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
			cmd.Env = append(os.Environ(), in+"="+dir, "TMPDIR="+elsewhere)
			all.Go(func() {
				if k%2 == 0 { // Half of them once the first is about to write.
					for !entered(inside) {
						time.Sleep(time.Millisecond)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(20*(round+1)))*time.Millisecond)
					defer cancel()
					victim := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
					victim.Env = cmd.Env
					_ = victim.Run()
					return
				}
				out, err := cmd.CombinedOutput()
				assert.NoError(t, err, "%s", out)
				assert.Contains(t, string(out), "--- PASS: "+t.Name())
			})
		}
		all.Wait()
		for range 2 {
			for _, name := range []string{"good", "bad", "host"} {
				require.Empty(t, loadIn(t, dir, name), "nothing of it is damaged")
			}
		}
		require.Len(t, meteredFiles(t, dir), 3)
	}
	left, err := filepath.Glob(filepath.Join(inside, "compiling-*"))
	require.NoError(t, err)
	long := time.Now().Add(-time.Hour)
	for _, dir := range left {
		require.NoError(t, os.Chtimes(dir, long, long))
	}
	require.Empty(t, loadIn(t, dir, "notify"))
	left, err = filepath.Glob(filepath.Join(inside, "compiling-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// entered reports whether somebody has begun to write into a cache.
func entered(inside string) bool {
	entries, err := os.ReadDir(inside)
	return err == nil && len(entries) > 1
}
