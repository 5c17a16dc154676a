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

// What is wrong with credentials is told without them.
func TestBadCredentialsAreToldOfWithoutThem(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"no colon": "me.secret", "no user": ":secret", "empty": "", "second line": "\nme:secret"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		_, err := handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{File: name}}, dir)
		require.EqualError(t, err, "the first line of "+name+" is not user:password")
	}
	_, err := handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{File: "none"}}, dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	const env = "CALLOUTD_TEST_LOGIN"
	_, err = handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{Env: env}}, dir)
	require.EqualError(t, err, "the environment variable "+env+" is not set")
	t.Setenv(env, "secret")
	_, err = handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{Env: env}}, dir)
	require.EqualError(t, err, "the environment variable "+env+" is not user:password")
	t.Setenv(env, "me:")
	h, err := handedTo(policyfile.Proxy{Kind: "socks5", Credentials: policyfile.Credentials{Env: env}}, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"me", ""}, []string{h.User, h.Password})
	h, err = handedTo(policyfile.Proxy{Kind: "socks5"}, dir)
	require.NoError(t, err)
	require.Empty(t, h.User)
}
