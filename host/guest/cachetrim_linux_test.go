package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/guest"
)

// What cannot be taken away costs its room and one line, and what is older than others that can
// does not keep them.
func TestACacheThatCannotBeTrimmed(t *testing.T) {
	dir := t.TempDir()
	for version, long := range map[string]time.Duration{"wazero@v1.0.0": 2 * time.Hour, "wazero@v1.1.0": time.Hour} {
		age(t, long, put(t, 1<<20, filepath.Join(dir, version, "metered-"+sumA+"-"+sumB+".wasm")))
		code := put(t, 1<<20, filepath.Join(dir, version, "wazero-v1.0.0-amd64-linux", sumB))
		age(t, long, code, filepath.Dir(code), filepath.Join(dir, version))
	}
	locked := filepath.Join(dir, "wazero@v1.0.0", "wazero-v1.0.0-amd64-linux")
	require.NoError(t, os.Chmod(locked, 0o500))
	defer os.Chmod(locked, 0o700)

	runtime.LockOSThread() // Root may do it with a capability, of this thread.
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &had[0]))
	less := had
	less[0].Effective &^= 1 << unix.CAP_DAC_OVERRIDE
	require.NoError(t, unix.Capset(&header, &less[0]))
	defer func() { require.NoError(t, unix.Capset(&header, &had[0])) }()

	var said []string
	logf := func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) }
	compileIn(t, guest.Options{CacheDir: dir, CacheDirSize: 1 << 20, Logf: logf}, "good", "bad")
	require.Len(t, said, 1)
	require.Contains(t, said[0], "the cache of compiled modules may take more than 1 MiB: ")
	require.Contains(t, said[0], "permission denied")
	require.FileExists(t, filepath.Join(filepath.Dir(locked), "metered-"+sumA+"-"+sumB+".wasm"), "an entry stays with its machine code")
	require.NoFileExists(t, filepath.Join(dir, "wazero@v1.1.0", "metered-"+sumA+"-"+sumB+".wasm"))
	require.Len(t, inCache(t, dir), 4)
}
