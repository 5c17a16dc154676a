package abi_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/abi"
)

func TestGeneratedFilesAreWhatTheTableMakes(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", "-trimpath", "gen.go", "-check").CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// All items of a request but the context fit together.
func TestRecordAlwaysFitsARequest(t *testing.T) {
	require.LessOrEqual(t, abi.RequestHeader+abi.MaxApp+abi.MaxUser+abi.MaxHostname+abi.MaxRecord, abi.ResponseOffset)
	for _, n := range []int{abi.MaxApp, abi.MaxUser, abi.MaxHostname, abi.MaxRecord} {
		require.Zero(t, n%8, "items are aligned")
	}
}

// A response holds the longest record and context, with a reason.
func TestLongestAnswerFitsAResponse(t *testing.T) {
	require.LessOrEqual(t, abi.ResponseHeader+abi.MaxRecord+abi.MaxContext+256, abi.BlockSize-abi.ResponseOffset)
}
