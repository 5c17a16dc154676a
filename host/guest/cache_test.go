package guest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
)

// loadIn loads a module with a cache and asks it.
func loadIn(t *testing.T, dir, name string) {
	t.Helper()
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: dir})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	m, err := rt.Load(t.Context(), name, wasm(t, name), guest.ModuleOptions{Slots: 1})
	require.NoError(t, err)
	defer m.Close(context.Background())
	_, err = ask(m, call(1))
	require.NoError(t, err)
}

func meteredFiles(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(guest.CacheOfVersion(dir), "metered-*.wasm"))
	require.NoError(t, err)
	return files
}

// machineCode is the only file of machine code in a cache.
func machineCode(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(guest.CacheOfVersion(dir), "wazero-*", "*"))
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

func TestDamagedCacheCostsTimeOnly(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	file := meteredFiles(t, dir)[0]
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, good[:len(good)/2], 0o600))
	loadIn(t, dir, "good")
	repaired, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, good, repaired)
}

// Machine code that a crash or a full disk left damaged is made again, and once.
func TestDamagedMachineCodeCostsTimeOnly(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	good, err := os.ReadFile(machineCode(t, dir))
	require.NoError(t, err)
	for _, damaged := range [][]byte{nil, good[:4], good[:len(good)/2], append(append([]byte{}, good[:len(good)-200]...), make([]byte, 200)...)} {
		require.NoError(t, os.WriteFile(machineCode(t, dir), damaged, 0o600))
		loadIn(t, dir, "good") // The damaged one goes.
		loadIn(t, dir, "good") // Another one is there.
		repaired, err := os.Stat(machineCode(t, dir))
		require.NoError(t, err)
		require.Equal(t, int64(len(good)), repaired.Size())
	}
}

// The tests of a library have no build info, from which wazero knows its version.
func TestWhatAnotherVersionCompiledIsNotRun(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	inside, err := filepath.Rel(dir, machineCode(t, dir))
	require.NoError(t, err)
	require.Regexp(t, `wazero[@-]v\d+\.\d+\.\d+`, inside)

	for source, want := range map[string]string{
		"/home/a/go/pkg/mod/github.com/tetratelabs/wazero@v1.12.0/config.go": filepath.Join(dir, "wazero@v1.12.0"),
		"github.com/fork/wazero@v2.0.0-rc.1/config.go":                       filepath.Join(dir, "wazero@v2.0.0-rc.1"),
		"/src/vendor/github.com/tetratelabs/wazero/config.go":                "",
		"/src/wazero@home": "",
		"":                 "",
	} {
		require.Equal(t, want, guest.CacheBySource(dir, source), source)
	}
	require.Empty(t, guest.CacheOfVersion(""))
}

func TestCacheThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	loadIn(t, filepath.Join(file, "dir"), "good")
}

func TestCompilationTakesTooLong(t *testing.T) {
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CompileTimeout: time.Nanosecond})
	require.NoError(t, err)
	defer rt.Close(context.Background())
	_, err = rt.Load(t.Context(), "slow", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
	require.ErrorContains(t, err, "compiling took longer than 1ns")
}
