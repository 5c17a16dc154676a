package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// A case that fails is named, with the line where its trace differs, and ends spec
// with code 1.
func TestSpecFailure(t *testing.T) {
	for how, want := range map[string]string{
		"explain":   "fails arb-06: ",
		"summarize": "\n  failing          1\n",
	} {
		t.Run(how, func(t *testing.T) {
			s, err := readSpec([]string{"ARB-06"})
			require.NoError(t, err)
			broken := s.cases["ARB-06"][0]
			broken.Want = "> classify something else\n"
			print := map[string]func(*bytes.Buffer) error{
				"explain":   func(b *bytes.Buffer) error { return s.print(s.explain, b, false) },
				"summarize": func(b *bytes.Buffer) error { return s.print(s.summarize, b, false) },
			}[how]
			var out bytes.Buffer
			require.Equal(t, exitCode(codeNo), print(&out))
			require.Contains(t, out.String(), want)
			require.Contains(t, out.String(), "testdata/arb-06.txtar: A hard permit is overridden only by a callout's block, the veto.: line 1 of the trace is")
		})
	}
}
