package conformance

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the traces into the want sections of the cases")

func TestEngine(t *testing.T) {
	if *update {
		rewrite(t)
		return
	}
	Run(t, nil)
}

func TestNaiveArbiter(t *testing.T) { Run(t, Naive) }

// rewrite puts what the engine does into the cases. What it wrote is to be read.
func rewrite(t *testing.T) {
	cases, err := Cases()
	require.NoError(t, err)
	for _, c := range cases {
		got, err := c.Trace(nil)
		require.NoError(t, err, c.File)
		data, err := os.ReadFile(c.File)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(c.File, withWant(data, got), 0o644))
	}
}

// withWant is data with another want section, for -update.
func withWant(data []byte, want string) []byte {
	ar := txtar.Parse(data)
	for i := range ar.Files {
		if ar.Files[i].Name == "want" {
			ar.Files[i].Data = []byte(want)
			return txtar.Format(ar)
		}
	}
	ar.Files = append(ar.Files, txtar.File{Name: "want", Data: []byte(want)})
	return txtar.Format(ar)
}
