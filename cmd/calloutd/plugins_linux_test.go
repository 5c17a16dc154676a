package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every plugin has what its users look for. testdata/script/test_ok.txtar runs the cases.
func TestPluginFolders(t *testing.T) {
	policies, err := filepath.Glob("../../plugins/*/policy.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, policies)
	for _, p := range policies {
		require.FileExists(t, filepath.Join(filepath.Dir(p), "README.md"))
		require.FileExists(t, filepath.Join(filepath.Dir(p), "policy_test.yaml"))
	}
}
