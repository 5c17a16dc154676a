package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The client reads the origin's answer, signed by the proxy's authority; the
// proxy reads the request, and its own connection passes once.
func TestInspect(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, `proxy: GET https://example.com/secret
client: 200 OK, the origin's /secret, by calloutd example authority
`, out.String())
}
