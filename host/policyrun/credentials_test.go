package policyrun

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
)

// Nobody sees why a proxy refuses a user whose name begins with what an editor put there.
func TestCredentialsAreWithoutWhatAnEditorAdds(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login"), []byte("\ufeffme:secret:more\r\nrest"), 0o600))
	h, err := handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{File: "login"}}, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"me", "secret:more"}, []string{h.User, h.Password})
}
