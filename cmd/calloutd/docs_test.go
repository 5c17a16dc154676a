package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

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

var (
	link     = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	anyFence = regexp.MustCompile("(?ms)^```.*?^```$")
)

func TestLinksLeadSomewhere(t *testing.T) {
	links, anchors, docs := 0, 0, documents(t)
	for file, text := range docs {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := file
			if links++; m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			_, err := os.Stat(to)
			require.NoError(t, err, file)
			if m[2] != "" {
				anchors++
				require.Contains(t, anchorsOf(docs[to]), m[2], "%s: %s", file, m[0])
			}
		}
	}
	require.Greater(t, links, 10)
	require.Greater(t, anchors, 5)
}

// anchorsOf are the headings of a document as links have them: small, without
// punctuation, with dashes for spaces.
func anchorsOf(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(anyFence.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case c == '-', c == '_', unicode.IsLetter(c), unicode.IsDigit(c):
				return unicode.ToLower(c)
			}
			return -1
		}, m[1]))
	}
	return all
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
