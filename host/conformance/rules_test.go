package conformance

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every rule has a case, but those that do not apply; a choice and a rule that does
// not apply have their reason.
func TestEveryRuleHasACase(t *testing.T) {
	rules, err := Rules()
	require.NoError(t, err)
	cases, err := Cases()
	require.NoError(t, err)
	shown := map[string]bool{}
	for _, c := range cases {
		shown[c.ID] = true
	}
	seen := map[string]bool{}
	for _, r := range rules {
		require.False(t, seen[r.ID], "%s stands twice", r.ID)
		seen[r.ID] = true
		require.NotEmpty(t, r.Says, r.ID)
		require.NotEmpty(t, r.Source, r.ID)
		switch r.Status {
		case Documented, Observed:
			require.True(t, shown[r.ID] || elsewhere(t, r), "%s has no case", r.ID)
		case Ambiguous:
			require.True(t, shown[r.ID] || elsewhere(t, r), "%s has no case", r.ID)
			require.NotEmpty(t, r.Reason, "%s: what was chosen", r.ID)
		case NotApplicable:
			require.False(t, shown[r.ID], "%s does not apply, but has a case", r.ID)
			require.NotEmpty(t, r.Reason, "%s: why it does not apply", r.ID)
		default:
			t.Errorf("%s: status %q is unknown", r.ID, r.Status)
		}
	}
}

// elsewhere reports whether the suite of another package names the rule.
func elsewhere(t *testing.T, r Rule) bool {
	if r.Shown == "" {
		return false
	}
	dir := filepath.Join("..", "..", filepath.FromSlash(r.Shown))
	found := false
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(r.ID))
		return err
	}))
	return found
}

// No case is of a rule that there is not.
func TestEveryCaseHasARule(t *testing.T) {
	rules, err := Rules()
	require.NoError(t, err)
	cases, err := Cases()
	require.NoError(t, err)
	for _, c := range cases {
		require.True(t, slices.ContainsFunc(rules, func(r Rule) bool { return r.ID == c.ID }), "%s: there is no rule %s", c.File, c.ID)
	}
}

// A case is found by its rule: in the file that begins with its name.
func TestCasesAreNamedByTheirRules(t *testing.T) {
	cases, err := Cases()
	require.NoError(t, err)
	for _, c := range cases {
		name, id := c.Name()+"-", strings.ToLower(c.ID)+"-"
		require.True(t, strings.HasPrefix(name, id), "%s shows %s", c.File, c.ID)
	}
}
