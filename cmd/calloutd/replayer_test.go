package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/flight"
)

// What is named as different is there to be seen, also what a decision's line leaves out.
func TestWhatDiffersIsShown(t *testing.T) {
	was := &flight.Outcome{Action: "redirect", Destination: "proxy:look", Layer: "ALE_CONNECT_REDIRECT_V4", Context: []byte("hello, proxy"), Record: []byte{1}}
	is := &flight.Outcome{Action: "permit", Destination: "192.0.2.1:80", Layer: "ALE_CONNECT_REDIRECT_V6", Context: []byte("hello, world")}
	parts := differing(was, is, flight.Header{})
	require.Equal(t, []string{"action", "destination", "layer", "context", "record"}, parts)
	require.Equal(t, `redirect to proxy:look, at ALE_CONNECT_REDIRECT_V4, context of 12 bytes, "proxy" at 7, record of 1 byte, "\x01" at 0`, apart(was, is, parts))
	require.Equal(t, `permit, to 192.0.2.1:80, at ALE_CONNECT_REDIRECT_V6, context of 12 bytes, "world" at 7, record none`, apart(is, was, parts))
	require.Equal(t, "permit, to none", apart(&flight.Outcome{Action: "permit"}, is, []string{"destination"}))
}
