package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every plugin has what its users look for. testdata/script/test_ok.txtar runs the cases.
func TestPluginFolders(t *testing.T) {
	policies, err := filepath.Glob("../../plugins/*/policy.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, policies)
	for _, p := range policies {
		require.FileExists(t, filepath.Join(filepath.Dir(p), "README.md"))
		require.FileExists(t, filepath.Join(filepath.Dir(p), "policy_test.yaml"))
	}
}

const goRun = "go run ./cmd/calloutd "

// A command of a README is an indented line; what it prints stands below it.
type command struct {
	line   string
	prints []string
}

func commands(text string) (all []command) {
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		switch {
		case !indented:
			all = append(all, command{}) // What is printed ends here.
		case strings.HasPrefix(line, goRun):
			all = append(all, command{line: strings.TrimPrefix(line, goRun)})
		case len(all) > 0 && all[len(all)-1].line != "":
			last := &all[len(all)-1]
			last.prints = append(last.prints, line)
		}
	}
	return all
}

// varies is what differs from run to run: processes, and ports that the system chose.
var varies = regexp.MustCompile(`\[\d+\]|127\.0\.0\.1:[3-6]\d{4}`)

// Every command in a plugin's README works as it stands there, and prints what
// stands below it.
func TestPluginREADMEs(t *testing.T) {
	need(t, "curl")
	warm(t)
	for file, text := range documents(t) {
		plugin, ok := strings.CutPrefix(filepath.ToSlash(filepath.Dir(file)), "../../plugins/")
		if !ok {
			continue
		}
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			live := false
			for _, c := range commands(text) {
				if c.line == "" {
					continue
				}
				live = live || strings.HasPrefix(c.line, "run ")
				cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec calloutd "+c.line)
				cmd.Dir = "../.."
				r := finish(t, cmd)
				got := varies.ReplaceAllString(r.stdout+r.stderr, "N")
				for _, want := range c.prints {
					require.Contains(t, got, varies.ReplaceAllString(want, "N"), "%s: %s", file, c.line)
				}
				if len(c.prints) == 0 {
					require.Zero(t, r.code, "%s: %s: %s", file, c.line, got)
				}
			}
			require.True(t, live, "%s has no command that enforces the policy", file)
		})
	}
}
