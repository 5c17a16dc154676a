package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
)

// documents are the Markdown files of the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	require.NoError(t, filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(file) == ".md" {
			src, err := os.ReadFile(file)
			docs[file] = string(src)
			return err
		}
		return err
	}))
	require.NotEmpty(t, docs)
	return docs
}

var link = regexp.MustCompile(`\]\(([^)#:]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for file, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			links++
			_, err := os.Stat(filepath.Join(filepath.Dir(file), m[1]))
			require.NoError(t, err, file)
		}
	}
	require.Greater(t, links, 10)
}

var block = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func TestPoliciesInDocumentsAreRight(t *testing.T) {
	policies := 0
	for file, text := range documents(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			policies++
			_, err := policyfile.Parse(file, []byte(m[1]))
			require.NoError(t, err)
		}
	}
	require.Positive(t, policies)
}
