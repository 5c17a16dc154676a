//go:build unix

package wholefile_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A reader of a pipe would wait here until the test is killed.
func TestOnlyAFileIsRead(t *testing.T) {
	t.Chdir(t.TempDir()) // The path of a socket is short.
	require.NoError(t, unix.Mkfifo("pipe", 0o600))
	l, err := net.Listen("unix", "socket")
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Mkdir("folder", 0o700))
	for path, what := range map[string]string{"pipe": "a pipe", "socket": "a socket", "folder": "a folder", os.DevNull: "a device"} {
		_, err := wholefile.Open(path)
		require.EqualError(t, err, path+" is "+what+": expected a file")
		_, err = wholefile.Read(path)
		require.EqualError(t, err, path+" is "+what+": expected a file")
	}
	require.NoError(t, os.Symlink("pipe", "link"))
	_, err = wholefile.Read("link")
	require.EqualError(t, err, "link is a pipe: expected a file")

	_, err = wholefile.Read("none")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, wholefile.Regular("none"), "it may become a file")
	require.NoError(t, os.WriteFile(filepath.Join("folder", "file"), []byte("text"), 0o600))
	got, err := wholefile.Read("folder/file")
	require.NoError(t, err)
	require.Equal(t, "text", string(got))
}
