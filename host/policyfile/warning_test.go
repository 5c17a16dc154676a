package policyfile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWarnings(t *testing.T) {
	stories(t, "warnings", func(t *testing.T, policy []byte) string {
		f := parse(t, string(policy))
		var lines strings.Builder
		for _, w := range f.Warnings() {
			require.True(t, w.Warning)
			inside(t, policy, w)
			lines.WriteString(strings.TrimPrefix(w.Error(), "policy.yaml:") + "\n")
		}
		return lines.String()
	})
}

// Policies that are beside this one are somebody else's to mend.
func TestWarningsAreOfThisFile(t *testing.T) {
	f, err := Beside(parse(t, "version: 1\nsublayers: [{id: mine, weight: 1}]\n"), parse(t, "version: 1\nsublayers: [{id: theirs, weight: 2}]\n"))
	require.NoError(t, err)
	require.Len(t, f.Warnings(), 1)
	require.Contains(t, f.Warnings()[0].Message, `"mine"`)
}
