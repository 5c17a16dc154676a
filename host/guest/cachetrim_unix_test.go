//go:build unix

package guest_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
)

// compileIn has modules compiled in a cache of a size, and returns what was said.
func compileIn(t *testing.T, o guest.Options, names ...string) {
	t.Helper()
	rt, err := guest.NewRuntime(t.Context(), o)
	require.NoError(t, err)
	defer rt.Close(context.Background())
	for _, name := range names {
		m, err := rt.Load(t.Context(), name, wasm(t, name), guest.ModuleOptions{Slots: 1})
		require.NoError(t, err)
		require.NoError(t, m.Close(context.Background()))
	}
}

// age makes files as old as if nobody had used them since.
func age(t *testing.T, since time.Duration, files ...string) {
	t.Helper()
	then := time.Now().Add(-since)
	for _, file := range files {
		require.NoError(t, os.Chtimes(file, then, then))
	}
}

// tree is every file and folder below a folder.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	}))
	return all
}

// inCache are the files of a cache's own version.
func inCache(t *testing.T, dir string) (files []string) {
	t.Helper()
	code, err := filepath.Glob(filepath.Join(dir, guest.CacheVersion(), "wazero-*", "*"))
	require.NoError(t, err)
	return append(code, meteredFiles(t, dir)...)
}

func put(t *testing.T, size int64, file string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("\x00asm"), 0o600))
	require.NoError(t, os.Truncate(file, size))
	return file
}

var sumA, sumB, sumC = strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)

// The module that was used least lately goes first, with all that is of it, once something is
// written that does not fit; what was read is used.
func TestACacheKeepsToItsSize(t *testing.T) {
	dir := t.TempDir()
	o := guest.Options{CacheDir: dir, CacheDirSize: 3 * 64 << 10, Logf: t.Errorf}
	compileIn(t, o, "good")
	good := inCache(t, dir)
	compileIn(t, o, "bad")
	age(t, 3*time.Hour, inCache(t, dir)...)
	age(t, 4*time.Hour, good...)
	compileIn(t, o, "good", "host") // Not bad.
	require.Len(t, inCache(t, dir), 6, "it fits")
	compileIn(t, o, "notify")
	left := inCache(t, dir)
	require.Len(t, left, 6)
	for _, file := range good {
		require.Contains(t, left, file)
	}
	compileIn(t, o, "bad")
	require.Len(t, inCache(t, dir), 8, "what was used lately stays")
	age(t, time.Hour, inCache(t, dir)...)
	o.CacheDirSize, o.MemoryLimitPages = -1, 128
	compileIn(t, o, "host")
	require.Len(t, inCache(t, dir), 9, "there is no limit, and the machine code is the same")
	o.CacheDirSize, o.MemoryLimitPages = 1, 0
	compileIn(t, o, "good", "host")
	require.Len(t, inCache(t, dir), 9, "nothing was written")
	o.MemoryLimitPages = 128
	compileIn(t, o, "good")
	require.Len(t, inCache(t, dir), 6, "good and host, with two entries each")

	// So does who has another process compile.
	age(t, time.Hour, inCache(t, dir)...)
	o.CompileApart = true
	compileIn(t, o, "bad")
	require.Len(t, inCache(t, dir), 2)
}

// Folders and files of older versions go as modules do, those that nobody uses after a month.
func TestWhatOlderVersionsLeftGoes(t *testing.T) {
	const month = 31 * 24 * time.Hour
	oldest := []string{"metered-" + sumA + ".wasm", "wazero-dev-amd64-linux/" + sumB, "wazero-v1.12.0-amd64-linux/" + sumC}
	older := []string{"wazero@v1.12.0/metered-" + sumA + ".wasm", "wazero@v1.12.0/wazero-dev-amd64-linux/" + sumB}
	newer := []string{"wazero@v9.9.9-00000000/metered-" + sumA + "-" + sumB + ".wasm", "wazero@v9.9.9-00000000/wazero-v9.9.9-amd64-linux/" + sumB}
	for name, left := range map[string][]string{"oldest": oldest, "older": older, "newer": newer} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var files, folders []string
			for _, file := range left {
				files = append(files, put(t, 1<<20, filepath.Join(dir, file)))
			}
			for _, path := range tree(t, dir)[1:] {
				if info, err := os.Stat(filepath.Join(dir, path)); err == nil && info.IsDir() {
					folders = append(folders, filepath.Join(dir, path))
				}
			}
			age(t, month, append(files, folders...)...)
			age(t, time.Hour, files[0])
			compileIn(t, guest.Options{CacheDir: dir}, "good")
			require.FileExists(t, files[0])

			age(t, month, files[0])
			compileIn(t, guest.Options{CacheDir: dir}, "bad")
			for _, file := range files {
				require.NoFileExists(t, file)
			}
			for _, folder := range folders { // What is in them went just now.
				if _, err := os.Stat(folder); err == nil {
					age(t, month, folder)
				}
			}
			compileIn(t, guest.Options{CacheDir: dir}, "host")
			require.Len(t, inCache(t, dir), 6)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "no folder is left of them")

			files = nil
			for _, file := range left {
				files = append(files, put(t, 1<<20, filepath.Join(dir, file)))
			}
			age(t, time.Hour, files...)
			compileIn(t, guest.Options{CacheDir: dir, CacheDirSize: 1 << 19}, "notify")
			for _, file := range files {
				require.NoFileExists(t, file, "there was no room")
			}
		})
	}
}

// A folder may have more than the cache in it.
func TestWhatIsNotTheCachesStays(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	compileIn(t, guest.Options{CacheDir: dir}, "good")
	var all []string
	for _, file := range []string{"notes.txt", "metered-2024.wasm", "metered-" + sumA, "metered-" + sumA + "-b.wasm", sumA, "old/metered-" + sumA + ".wasm",
		"wazero-v1.12.0-amd64-linux/" + sumA, "wazero-src/main.go", "wazero-src/" + sumA[:63], guest.CacheVersion() + "/notes.txt", guest.CacheVersion() + "/compiled/" + sumA,
		"wazero@v1.0.0/notes.txt", "wazero@v1.0.0/wazero-v1.0.0-amd64-linux/notes.txt", "wazero@v1.0.0/wazero-v1.0.0-amd64-linux/" + sumB + "/metered-" + sumA + ".wasm"} {
		all = append(all, put(t, 1<<20, filepath.Join(dir, file)))
	}
	for _, file := range []string{"metered-" + sumA + ".wasm", "wazero-dev-amd64-linux/" + sumA} {
		all = append(all, put(t, 1<<20, filepath.Join(elsewhere, file)))
	}
	for link, to := range map[string]string{"metered-" + sumB + ".wasm": all[0], "wazero@v1.1.0": elsewhere, "wazero-v1.1.0-amd64-linux": filepath.Join(elsewhere, "wazero-dev-amd64-linux"),
		"wazero@v1.2.0": "old", "wazero@v1.0.0/metered-" + sumB + ".wasm": "notes.txt"} {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, link)))
		all = append(all, filepath.Join(dir, link))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "metered-"+sumC+".wasm"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "wazero-empty"), 0o700))
	if os.Geteuid() == 0 {
		theirs := put(t, 1<<20, filepath.Join(dir, "wazero@v1.0.0", "metered-"+sumC+".wasm"))
		require.NoError(t, os.Chown(theirs, 65534, 65534))
		all = append(all, theirs)
	}
	before, beside := tree(t, dir), tree(t, elsewhere)
	for _, path := range before {
		if info, err := os.Lstat(filepath.Join(dir, path)); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			age(t, 365*24*time.Hour, filepath.Join(dir, path))
		}
	}
	for _, path := range beside {
		age(t, 365*24*time.Hour, filepath.Join(elsewhere, path))
	}
	good := inCache(t, dir)
	compileIn(t, guest.Options{CacheDir: dir, CacheDirSize: 1}, "bad")
	for _, file := range good {
		require.NoFileExists(t, file)
	}
	require.Subset(t, tree(t, dir), rel(t, dir, all))
	require.DirExists(t, filepath.Join(dir, "metered-"+sumC+".wasm"))
	require.DirExists(t, filepath.Join(dir, "wazero-empty"))
	require.Equal(t, beside, tree(t, elsewhere))

	// Machine code of another program is told from that of an old version by what is beside it.
	put(t, 1<<20, filepath.Join(dir, "metered-"+sumA+".wasm"))
	age(t, time.Hour, filepath.Join(dir, "metered-"+sumA+".wasm"))
	age(t, time.Hour, filepath.Join(dir, "wazero-v1.12.0-amd64-linux", sumA))
	compileIn(t, guest.Options{CacheDir: dir, CacheDirSize: 1}, "host")
	require.NoFileExists(t, filepath.Join(dir, "wazero-v1.12.0-amd64-linux", sumA))
	require.NoDirExists(t, filepath.Join(dir, "wazero-v1.12.0-amd64-linux"))
	require.DirExists(t, filepath.Join(dir, "wazero-empty"))
	require.FileExists(t, filepath.Join(dir, "wazero-src", "main.go"))
}

func rel(t *testing.T, dir string, files []string) (out []string) {
	for _, file := range files {
		if path, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(path) {
			out = append(out, path)
		}
	}
	return out
}

// Without a folder for the cache one is used among those of others.
func TestNothingIsTakenFromTheFolderForTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	left := put(t, 1<<20, filepath.Join(dir, "metered-"+sumA+".wasm"))
	age(t, 365*24*time.Hour, left)
	compileIn(t, guest.Options{CompileApart: true, CacheDirSize: 1}, "good")
	require.FileExists(t, left)
}

// Who reads and writes a cache that others empty meanwhile compiles more often, and no more.
func TestACacheIsTrimmedBesideItsUsers(t *testing.T) {
	const in = "CALLOUTD_TEST_TRIMMED"
	modules := []string{"good", "bad", "host"}
	if dir := os.Getenv(in); dir != "" {
		for range 3 {
			for _, name := range modules {
				require.Empty(t, loadIn(t, dir, name))
			}
		}
		return
	}
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var users, trims sync.WaitGroup
	for range 2 {
		trims.Go(func() {
			for ctx.Err() == nil {
				assert.NoError(t, guest.TrimFolder(dir, guest.CacheVersion(), 1, 0))
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 3 {
		users.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
			cmd.Env = append(os.Environ(), in+"="+dir)
			out, err := cmd.CombinedOutput()
			assert.NoError(t, err, "%s", out)
			assert.Contains(t, string(out), "--- PASS: "+t.Name())
		})
	}
	users.Wait()
	stop()
	trims.Wait()
	require.NoError(t, guest.TrimFolder(dir, guest.CacheVersion(), 1, 0))
	require.Empty(t, inCache(t, dir))
	for range 2 {
		for _, name := range modules {
			require.Empty(t, loadIn(t, dir, name))
		}
	}
	require.Len(t, inCache(t, dir), 6)
}

// A program that runs for long may find that nothing is left of its folder.
func TestAFolderThatIsGoneIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	var said []string
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: dir, Logf: func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) }})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, guest.CacheVersion())))
	m, err := rt.Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	require.NoError(t, m.Close(context.Background()))
	require.Empty(t, said)
	require.Len(t, inCache(t, dir), 2)
}
