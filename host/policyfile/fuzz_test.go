package policyfile

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Whatever the text, Parse does not panic and every mistake has a place in the
// text. What it takes, the schema and the engine take as well.
func FuzzParse(f *testing.F) {
	archives, err := filepath.Glob("testdata/*/*.txtar")
	require.NoError(f, err)
	for _, file := range archives {
		ar, err := txtar.ParseFile(file)
		require.NoError(f, err)
		for _, story := range ar.Files {
			f.Add(story.Data)
		}
	}
	examples, err := filepath.Glob("../../examples/*/policy.yaml")
	require.NoError(f, err)
	for _, file := range examples {
		src, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(src)
	}
	schema := compiledSchema(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("policy.yaml", src)
		if err != nil {
			var es Errors
			require.True(t, errors.As(err, &es), "%v", err)
			require.NotEmpty(t, es)
			for _, p := range es {
				inside(t, src, p)
			}
			return
		}
		require.NoError(t, schema.Validate(asJSON(t, src)))
		require.NoError(t, host.New(host.Options{}).Update(func(p *fwpm.Policy) error { *p = file.Policy; return nil }))
		proxies := map[string]netip.AddrPort{}
		for _, p := range file.Proxies {
			proxies[p.ID] = p.Listen
		}
		for _, c := range file.Callouts {
			_, err := c.ConfigJSON(proxies, 1)
			require.NoError(t, err)
		}
	})
}
