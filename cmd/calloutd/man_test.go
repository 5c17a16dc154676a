package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// Every command has a manual page that says what its --help says.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	root := newRoot()
	root.SetArgs([]string{"man", "--date", "2026-01-31", dir})
	require.NoError(t, root.Execute())
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		src, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"))
		require.NoError(t, err)
		page := string(src)
		require.Contains(t, page, "Jan 2026")
		require.Contains(t, page, strings.Fields(c.Short)[0])
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				require.Contains(t, strings.ReplaceAll(page, `\-`, "-"), "--"+f.Name, c.Name())
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot())
}

func TestManualPageErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"--date yesterday: want a day": {"man", "--date", "yesterday", t.TempDir()},
		"no such file or directory":    {"man", filepath.Join(t.TempDir(), "none")},
		"man.go is no folder":          {"man", "man.go"},
	} {
		root := newRoot()
		root.SetArgs(args)
		require.ErrorContains(t, root.Execute(), want)
	}
}
