package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
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

// A callout that is asked at several layers is told by a number at which.
func TestLayersHaveTheirNumbersInTheSDK(t *testing.T) {
	abi, err := os.ReadFile("../../sdk/abi/ABI.md")
	require.NoError(t, err)
	js, err := os.ReadFile("../../sdk/js/callout.d.ts")
	require.NoError(t, err)
	for _, l := range fwpm.Layers() {
		if l.IsV6() {
			continue
		}
		name, v6 := strings.TrimSuffix(l.String(), "_V4"), l.ForFamily(true)
		require.Contains(t, string(abi), fmt.Sprintf("\n| %s | %d | %d | ", name, l, v6))
		require.Regexp(t, fmt.Sprintf(`%s %d, %d[;.]`, name, l, v6), string(js))
	}
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
