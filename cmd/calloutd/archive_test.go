package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An archive with its own cases is what it was, byte for byte, and with others only
// they differ.
func TestAnArchiveChangesOnlyItsCases(t *testing.T) {
	const cases = "version: 1\ncases: []\n"
	for name, c := range map[string]struct{ before, cases, after string }{
		"in the middle":                {"About it.\n\n-- policy_test.yaml --\n", cases, "\n# end\n-- policy.yaml --\nversion: 1\n"},
		"at the end":                   {"-- policy.yaml --\nversion: 1\n\n-- policy_test.yaml --\n", cases, ""},
		"without a last line end":      {"-- policy_test.yaml --\n", "version: 1\ncases: []", ""},
		"with the line ends of others": {"About it.\r\n-- policy_test.yaml --\r\n", "version: 1\r\ncases: []\r\n", "-- policy.yaml --\r\nversion: 1\r\n"},
		"what looks like a part":       {" -- policy_test.yaml --\n--  policy_test.yaml  -- \n-- policy_test.yaml --\n", cases, ""},
	} {
		t.Run(name, func(t *testing.T) {
			src := c.before + c.cases + c.after
			a, err := readArchive("a_test.txtar", []byte(src))
			require.NoError(t, err)
			require.Equal(t, src, string(a.with(a.cases)))
			other := append(append([]byte{}, a.cases...), "# more\n"...)
			require.Equal(t, c.before, string(a.with(other)[:len(c.before)]))
			require.Contains(t, string(a.with(other)), "# more")
		})
	}
	_, err := readArchive("a_test.txtar", []byte("-- policy_test.yaml --\n-- policy_test.yaml --\n"))
	require.EqualError(t, err, `a_test.txtar: part "policy_test.yaml" stands twice`)
}
