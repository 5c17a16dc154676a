package wholefile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

func TestAFileIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, wholefile.Write(path, []byte("one")))
	require.NoError(t, wholefile.Write(path, []byte("two")))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(got))
	only(t, filepath.Dir(path), "policy.yaml")
}

// Errors are about the file that was meant, and nothing is left beside it.
func TestErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{
		filepath.Join(dir, "gone", "policy.yaml"): fs.ErrNotExist,
		filepath.Join(dir, "none", "x", "y"):      fs.ErrNotExist,
	} {
		for _, err := range []error{wholefile.Write(path, nil), wholefile.Replaceable(path)} {
			require.ErrorIs(t, err, want)
			require.ErrorContains(t, err, "open "+path+":")
		}
	}
	require.NoError(t, wholefile.Replaceable(filepath.Join(dir, "new")))
	only(t, dir)
}

func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	require.Equal(t, append([]string{}, names...), got)
}
