package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEmbed(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Regexp(t, `^the proxy answers for 198\.51\.100\.7:80
Get "http://192\.0\.2\.1:25/": wsk: connect: STATUS_ACCESS_DENIED: embed\[\d+\] to 192\.0\.2\.1:25 blocked at ALE_AUTH_CONNECT_V4 by filter 2 "no mail" \(ARB-01\): the policy blocks it
Get "http://\[2001:db8::1\]/": wsk: connect: STATUS_ACCESS_DENIED: embed\[\d+\] to \[2001:db8::1\]:80 blocked at ALE_AUTH_CONNECT_V6 by filter 3 "no IPv6" \(ARB-01\): the policy blocks it
connections: 1 let go, 2 blocked
$`, out.String())
}
