package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var fence = regexp.MustCompile("(?ms)^```([a-z]+)(?: (\\S+))?\n(.*?)^```$")

// The tutorial is run as it is read: a block with the name of a file is written,
// and a command of a console prints what stands after it, where "..." is
// anything.
func TestTutorial(t *testing.T) {
	for _, cond := range []string{"can:rust", "can:go", "tool:curl"} {
		ok, err := can(t.Context(), cond, "")
		require.NoError(t, err)
		if !ok {
			t.Skip("it needs", cond)
		}
	}
	src, err := os.ReadFile("../../examples/tutorial/README.md")
	require.NoError(t, err)
	dir := t.TempDir()
	commands := 0
	for _, m := range fence.FindAllStringSubmatch(string(src), -1) {
		lang, file, text := m[1], m[2], m[3]
		switch {
		case file != "":
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
		case lang == "console":
			for _, step := range strings.Split(text, "$ ")[1:] {
				command, want, _ := strings.Cut(step, "\n")
				cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s\n%s", command, out)
				require.Regexp(t, pattern(want), string(out), command)
				commands++
			}
		}
	}
	require.Greater(t, commands, 10)
}

// pattern is what an output must match.
func pattern(want string) string {
	parts := strings.Split(want, "...")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return "(?s)^" + strings.Join(parts, ".*") + "$"
}
