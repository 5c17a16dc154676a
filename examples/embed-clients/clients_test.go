package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClients(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	lines := strings.Split(out.String(), "\n")
	require.Len(t, lines, 5)
	require.Equal(t, []string{"gRPC: SERVING", "database/sql: hello"}, lines[:2])
	for _, line := range lines[2:4] {
		require.Contains(t, line, `STATUS_ACCESS_DENIED: embed-clients[`)
		require.Contains(t, strings.ReplaceAll(line, `\"`, `"`), `by filter 1 "nothing goes out" (ARB-01)`)
	}
}
