package tck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/project"
)

// What an editor is told of JavaScript marks the mistakes of uses.ts and nothing else
// there, and nothing in what calloutd new begins with.
func TestTypeScriptReadsTheDeclarations(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		absent(t, err.Error())
	}
	tools := npm("TSC", "typescript/bin/tsc")(t)
	uses, err := filepath.Abs("../js/test/uses.ts")
	require.NoError(t, err)
	files := []string{uses}
	dir := t.TempDir()
	for _, start := range []project.Start{project.Blocks, project.Redirects} {
		_, err := project.New(dir, "js", string(start), start)
		require.NoError(t, err)
		main := filepath.Join(dir, string(start), "policy.js")
		src, err := os.ReadFile(main)
		require.NoError(t, err)
		require.Contains(t, string(src), "// @ts-check")
		files = append(files, main)
	}
	for _, file := range files { // Each is a program of its own.
		run(t, "node TSC --noEmit --strict --noImplicitAny false --allowJs --target es2020 --lib es2020 "+file, tools, dir, "")
	}
	text, err := os.ReadFile(uses)
	require.NoError(t, err)
	require.Greater(t, strings.Count(string(text), "@ts-expect-error"), 10)
}
