package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// A row of the table of exit codes in README.md: a code, or a sum of two, and a command
// that ends with it.
var exitRow = regexp.MustCompile("(?m)^\\| (\\d+)(?: \\+ (\\d+))?(?:, say)? \\| ([^|]*) \\| [^|]* \\| (?:`([^`]+)` )?\\|$")

func TestExitCodes(t *testing.T) {
	need(t, "make")
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(text), "\n## Exit codes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := exitRow.FindAllStringSubmatch(table, -1)
	require.Len(t, rows, strings.Count(table, "\n| ")-1, "each row but the heading is understood")
	dir := workshop(t)
	require.Zero(t, finish(t, shellIn(dir, "calloutd run -p policy.yaml --record make.flight -- make")).code)
	said := []string{}
	for _, m := range rows {
		code, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		if m[2] != "" {
			more, err := strconv.Atoi(m[2])
			require.NoError(t, err)
			code += more
		}
		if code == codeNo {
			said = append(said, strings.Trim(m[3], "`"))
		}
		if m[4] != "" {
			r := finish(t, shellIn(dir, m[4]))
			require.Equal(t, code, r.code, "%s\n%s%s", m[4], r.stdout, r.stderr)
		}
	}
	slices.Sort(said)
	require.Equal(t, sayNo(t), said, "the commands that have a row for code 1")
}

func shellIn(dir, line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	return cmd
}

var saysNo = regexp.MustCompile(`\bcodeNo\b`)

// sayNo are the commands whose source has an end with code 1.
func sayNo(t *testing.T) (names []string) {
	t.Helper()
	of := map[string]string{"soak": "bench", "testreport": "test"} // files that are part of a command
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		name := strings.TrimSuffix(file, ".go")
		if strings.HasSuffix(name, "_test") || name == "main" || !saysNo.Match(src) {
			continue
		}
		if command := of[name]; command != "" {
			name = command
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// What --json prints has one form.
func TestJSONIsAnObjectALine(t *testing.T) {
	found := 0
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if f := cmd.Flags().Lookup("json"); f != nil {
			found++
			require.Equal(t, "print JSON, one object a line", f.Usage, cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot())
	require.Greater(t, found, 10)
}
