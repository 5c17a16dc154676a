package tck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/tck"
)

func TestMirrors(t *testing.T) {
	t.Parallel()
	for _, g := range []struct {
		language string
		opts     tck.Options
	}{
		{"c", tck.Options{}},
		{"cpp", tck.Options{}},
		{"rust", tck.Options{Total: true}},
		{"assemblyscript", tck.Options{}},
		{"zig", tck.Options{}},
		{"wat", tck.Options{}},
	} {
		t.Run(g.language, func(t *testing.T) {
			t.Parallel()
			wasm, err := os.ReadFile(filepath.Join(g.language, "mirror.wasm"))
			require.NoError(t, err)
			tck.Run(t, wasm, g.opts)
		})
	}
	t.Run("js", func(t *testing.T) {
		t.Parallel()
		engine, err := os.ReadFile("../js/engine.wasm")
		require.NoError(t, err)
		script, err := os.ReadFile("js/mirror.js")
		require.NoError(t, err)
		wasm, err := project.WithScript(engine, script)
		require.NoError(t, err)
		tck.Run(t, wasm, tck.Options{Interprets: true})
	})
	t.Run("go", func(t *testing.T) { // too large to be committed
		t.Parallel()
		out := filepath.Join(t.TempDir(), "mirror.wasm")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", out, "./go")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		msg, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", msg)
		wasm, err := os.ReadFile(out)
		require.NoError(t, err)
		tck.Run(t, wasm, tck.Options{})
	})
}
