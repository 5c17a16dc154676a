package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
)

// loadIn loads a module with a cache and asks it, and returns what was said of the cache.
func loadIn(t *testing.T, dir, name string) (said []string) {
	t.Helper()
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: dir, Logf: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	m, err := rt.Load(t.Context(), name, wasm(t, name), guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	defer m.Close(context.Background())
	_, err = ask(m, call(1))
	require.NoError(t, err)
	return said
}

func meteredFiles(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, guest.CacheVersion(), "metered-*.wasm"))
	require.NoError(t, err)
	return files
}

// machineCode is the only file of machine code in a cache.
func machineCode(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, guest.CacheVersion(), "wazero-*", "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0]
}

func TestMeteredModulesAreKept(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	files := meteredFiles(t, dir)
	require.Len(t, files, 1)
	before, err := os.Stat(files[0])
	require.NoError(t, err)
	loadIn(t, dir, "good")
	after, err := os.Stat(files[0])
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "it was not written again")
	loadIn(t, dir, "bad")
	assert.Len(t, meteredFiles(t, dir), 2)
}

// wreck puts something in the place of each file of a cache in turn. It is noticed, said once, and made again.
func wreck(t *testing.T, wreck func(t *testing.T, file string, good []byte)) {
	dir := t.TempDir()
	require.Empty(t, loadIn(t, dir, "good"))
	for _, file := range []string{meteredFiles(t, dir)[0], machineCode(t, dir)} {
		good, err := os.ReadFile(file)
		require.NoError(t, err)
		wreck(t, file, good)
		said := loadIn(t, dir, "good")
		require.Len(t, said, 1)
		require.Contains(t, said[0], file)
		repaired, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, good, repaired)
		require.Empty(t, loadIn(t, dir, "good"))
	}
	inside, err := os.ReadDir(filepath.Join(dir, guest.CacheVersion()))
	require.NoError(t, err)
	require.Len(t, inside, 2, "nothing is left beside them")
}

// A bit that is not as it was written is found wherever it is: wazero has a sum of the machine
// code alone, and starts functions where a table in front of it says.
func TestDamageOfTheCacheIsFound(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: dir})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	files := []string{meteredFiles(t, dir)[0], machineCode(t, dir)}
	var good [2][]byte
	for k, file := range files {
		good[k], err = os.ReadFile(file)
		require.NoError(t, err)
	}
	kept := func(k int, damaged []byte) bool {
		require.NoError(t, os.WriteFile(files[k], damaged, 0o600))
		require.NoError(t, os.WriteFile(files[1-k], good[1-k], 0o600))
		return guest.Kept(rt, wasm(t, "good"))
	}
	for k := range files {
		for at := range good[k] {
			flipped := bytes.Clone(good[k])
			flipped[at] ^= 1 << (at % 8)
			require.False(t, kept(k, flipped), "%s: byte %d", files[k], at)
			require.NoFileExists(t, files[1])
			if at%8 == 0 {
				require.False(t, kept(k, good[k][:at]), "%s: %d bytes of it", files[k], at)
			}
		}
		require.False(t, kept(k, append(bytes.Clone(good[k]), 0)), "%s: one more", files[k])
		require.True(t, kept(k, good[k]))
	}
}

// Machine code that begins elsewhere, which no sum of wazero's covers, and what a crash or a
// full disk may leave.
func TestDamageOfTheCacheCostsTimeOnly(t *testing.T) {
	for name, damage := range map[string]func(good []byte) []byte{
		"table": func(good []byte) []byte {
			at := len("WAZEVO") + 1 + int(good[len("WAZEVO")]) + 4
			for k := range 8 {
				good[at+k] ^= 0x55
			}
			return good
		},
		"empty": func([]byte) []byte { return nil },
		"half":  func(good []byte) []byte { return good[:len(good)/2] },
		"zeros": func(good []byte) []byte { clear(good[len(good)-200:]); return good },
	} {
		t.Run(name, func(t *testing.T) {
			wreck(t, func(t *testing.T, file string, good []byte) {
				require.NoError(t, os.WriteFile(file, damage(bytes.Clone(good)), 0o600))
			})
		})
	}
}

// Files that took the place of others, whole as they are.
func TestSwappedFilesOfTheCache(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "bad")
	bad, code := meteredFiles(t, dir)[0], machineCode(t, dir)
	loadIn(t, dir, "good")
	var good, goodCode string
	for _, file := range meteredFiles(t, dir) {
		if file != bad {
			good, goodCode = file, filepath.Join(filepath.Dir(code), file[len(file)-64-len(".wasm"):len(file)-len(".wasm")])
		}
	}
	for from, to := range map[string]string{bad: good, code: goodCode} {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o600))
	}
	require.Len(t, loadIn(t, dir, "good"), 1)
	require.Empty(t, append(loadIn(t, dir, "good"), loadIn(t, dir, "bad")...))
	require.Len(t, meteredFiles(t, dir), 2)
}

// Nobody knows which file wazero will open on this processor: those for others must be right, too.
func TestDamagedFilesForAnotherProcessor(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: dir})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	file := meteredFiles(t, dir)[0]
	other := file[:len(file)-64-len(".wasm")] + "other.wasm"
	for _, place := range []string{other, filepath.Join(filepath.Dir(machineCode(t, dir)), "other")} {
		require.NoError(t, os.WriteFile(place, []byte("damaged"), 0o600))
	}
	require.False(t, guest.Kept(rt, wasm(t, "good")))
	require.NoFileExists(t, other)
	machineCode(t, dir)
	require.True(t, guest.Kept(rt, wasm(t, "good")))
}

// Who ended between the two files that are written left one that is not used, and who else
// has written them meanwhile has written the same.
func TestHalfWrittenCache(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	require.NoError(t, os.Remove(machineCode(t, dir)))
	require.Empty(t, loadIn(t, dir, "good"))
	machineCode(t, dir)
}

// What somebody left who ended is taken away, and not what somebody works in.
func TestWhatWasAbandonedIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	inside := filepath.Join(dir, guest.CacheVersion())
	locked, done, err := guest.WorkIn(inside, "compiling-")
	require.NoError(t, err)
	abandoned, young := filepath.Join(inside, "compiling-1"), filepath.Join(inside, "compiling-2")
	for _, d := range []string{abandoned, young} {
		require.NoError(t, os.Mkdir(d, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(d, "half"), []byte("half"), 0o600))
	}
	long := time.Now().Add(-time.Hour)
	for _, d := range []string{abandoned, locked} {
		require.NoError(t, os.Chtimes(d, long, long))
	}
	require.Empty(t, loadIn(t, dir, "bad"))
	require.DirExists(t, locked)
	require.DirExists(t, young)
	if runtime.GOOS == "linux" {
		require.NoDirExists(t, abandoned)
	}
	require.NoError(t, done())
	require.NoDirExists(t, locked)
}

// The tests of a library have no build info, from which wazero knows its version.
func TestWhatAnotherVersionCompiledIsNotRun(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	inside, err := filepath.Rel(dir, machineCode(t, dir))
	require.NoError(t, err)
	require.Regexp(t, `^wazero@v\d+\.\d+\.\d+`, inside)

	for source, want := range map[string]string{
		"/home/a/go/pkg/mod/github.com/tetratelabs/wazero@v1.12.0/config.go": "v1.12.0",
		"github.com/fork/wazero@v2.0.0-rc.1/config.go":                       "v2.0.0-rc.1",
		"/src/vendor/github.com/tetratelabs/wazero/config.go":                "",
		"/src/wazero@home": "",
		"":                 "",
	} {
		require.Equal(t, want, guest.VersionOfSource(source), source)
	}
}

func TestCacheThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	said := loadIn(t, filepath.Join(file, "dir"), "good")
	require.Len(t, said, 1)
	require.Contains(t, said[0], "compiled modules are not kept: ")

	// Something is in the way of a file, which is not ours to take away.
	dir := t.TempDir()
	loadIn(t, dir, "good")
	for _, file := range []string{meteredFiles(t, dir)[0], machineCode(t, dir)} {
		_ = os.Remove(file) // The one before took both away.
		require.NoError(t, os.MkdirAll(filepath.Join(file, "kept"), 0o700))
		for range 2 {
			said := loadIn(t, dir, "good")
			require.NotEmpty(t, said)
			require.Contains(t, said[len(said)-1], "compiled modules are not kept: ")
			require.Contains(t, said[len(said)-1], file)
		}
		require.DirExists(t, filepath.Join(file, "kept"))
		require.NoError(t, os.RemoveAll(file))
	}
	require.Empty(t, loadIn(t, dir, "good"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, guest.CacheVersion(), "wazero-other"), 0o700))
	require.Contains(t, loadIn(t, dir, "good")[0], "2 folders of wazero's, expected 1")
}

func TestCompilationTakesTooLong(t *testing.T) {
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CompileTimeout: time.Nanosecond})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	_, err = rt.Load(t.Context(), "slow", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.ErrorContains(t, err, "compiling took longer than 1ns")
}
