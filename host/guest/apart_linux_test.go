package guest_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/race"
)

// children of this process, by all its threads.
func children(t *testing.T) (all []string) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	require.NoError(t, err)
	require.NotEmpty(t, lists)
	for _, list := range lists {
		of, _ := os.ReadFile(list) // The thread may have ended.
		all = append(all, strings.Fields(string(of))...)
	}
	return all
}

// peak is the most memory that this process had, in bytes, since reset.
func peak(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(status), "VmHWM:")
	require.True(t, found)
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(t, err)
	return kib << 10
}

// One that somebody else left a part of in the cache is not compiled here for that.
func TestHalfOfACacheIsCompiledApart(t *testing.T) {
	dir := t.TempDir()
	loadIn(t, dir, "good")
	machine := machineCode(t, dir)
	for _, damage := range []func() error{
		func() error { return os.Remove(machine) },
		func() error { return os.WriteFile(machine, []byte("damaged"), 0o600) },
	} {
		require.NoError(t, damage())
		_, err := apart(t, guest.Options{CacheDir: dir, CompileMemory: 1 << 20}).Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
		require.ErrorContains(t, err, "it had the processor for ") // the other process, in which nobody compiles
		m, err := apart(t, guest.Options{CacheDir: dir}).Load(t.Context(), "good", wasm(t, "good"), guest.ModuleOptions{Slots: 1})
		require.NoError(t, err)
		require.NoError(t, m.Close(t.Context()))
	}
}

// The compiler would need gigabytes for the one function of this module.
func TestWhatTakesTheCompilerTooMuchMemoryIsEnded(t *testing.T) {
	limit := uint64(512 << 20)
	if race.Enabled {
		limit = 1 << 30
	}
	runtime.GC()
	require.NoError(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // The peak is that from here.
	before := peak(t)
	rt := apart(t, guest.Options{CompileMemory: limit})
	_, err := rt.Load(t.Context(), "bomb", hungry(20000), guest.ModuleOptions{Slots: 1})
	require.Equal(t, guest.ErrTooLarge, kindOf(t, err), "%v", err)
	require.ErrorContains(t, err, "compiling took more memory than "+strconv.FormatUint(limit>>20, 10)+" MiB (it had the processor for ")
	t.Log(err)
	require.Less(t, peak(t)-before, 32<<20, "of what the compiler had")
	require.Empty(t, children(t))
}

// Whose compiler somebody ends is no worse for that.
func TestACompilerThatIsKilledIsNoFaultOfTheModule(t *testing.T) {
	ended := make(chan error, 1)
	go func() {
		_, err := apart(t, guest.Options{}).Load(t.Context(), "bomb", slow(40000), guest.ModuleOptions{Slots: 1})
		ended <- err
	}()
	require.Eventually(t, func() bool {
		for _, c := range children(t) {
			name, _ := os.ReadFile("/proc/" + c + "/comm")
			pid, err := strconv.Atoi(c)
			if err == nil && string(name) == "exe\n" {
				return unix.Kill(pid, unix.SIGKILL) == nil
			}
		}
		return false
	}, time.Minute, time.Millisecond)
	err := <-ended
	require.NoError(t, kindOf(t, err))
	require.ErrorContains(t, err, "no process to compile in: it was killed")
}
