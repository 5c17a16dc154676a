package redirect_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
)

// fullHop has a value in every field.
func fullHop() *redirect.Hop {
	return &redirect.Hop{Serial: 1<<63 | 5, Handle: 3, Provider: "contoso", FilterID: 9, Callout: "web",
		Original: netip.MustParseAddrPort("198.51.100.7:80"), Target: netip.MustParseAddrPort("[fe80::1%eth0]:8080"),
		TargetPID: 11, ProcessID: 12, AppID: "/usr/bin/curl", Client: netip.MustParseAddr("192.0.2.9"), Record: []byte("record"), Context: []byte("context")}
}

func encode(t testing.TB, h *redirect.Hop) []byte {
	t.Helper()
	n, err := h.EncodedLen()
	require.NoError(t, err)
	b, err := h.AppendBinary(nil)
	require.NoError(t, err)
	require.Len(t, b, n)
	return b
}

func TestEveryFieldIsEncoded(t *testing.T) {
	h := fullHop()
	got, err := redirect.DecodeHop(encode(t, h))
	require.NoError(t, err)
	require.Equal(t, h, got)
	for _, a := range []string{"198.51.100.7:80", "[2001:db8::7]:80", "[::ffff:198.51.100.7]:80", "[fe80::7%3]:80"} {
		h.Original = netip.MustParseAddrPort(a)
		h.Client = h.Original.Addr()
		got, err := redirect.DecodeHop(encode(t, h))
		require.NoError(t, err)
		require.Equal(t, h, got, "AMB-25: a family stays what it is")
	}
	empty := &redirect.Hop{}
	got, err = redirect.DecodeHop(encode(t, empty))
	require.NoError(t, err)
	require.Equal(t, empty, got)
}

// A part that a hop hands out cannot grow into the next one.
func TestDecodedBlobsEndWhereTheyEnd(t *testing.T) {
	got, err := redirect.DecodeHop(encode(t, fullHop()))
	require.NoError(t, err)
	_ = append(got.Record, "overwritten"...)
	require.Equal(t, "context", string(got.Context))
}

func TestTooLargeNamesThePart(t *testing.T) {
	for want, h := range map[string]*redirect.Hop{
		"its record has 4097 bytes, at most 4096":    {Record: make([]byte, redirect.MaxBlob+1)},
		"its context has 4097 bytes":                 {Context: make([]byte, redirect.MaxBlob+1)},
		"its application has 65536 bytes":            {AppID: strings.Repeat("a", 1<<16)},
		"its provider has 65536 bytes":               {Provider: strings.Repeat("a", 1<<16)},
		"its callout has 65536 bytes":                {Callout: strings.Repeat("a", 1<<16)},
		"zone of the target address has 256 bytes":   {Target: netip.AddrPortFrom(netip.IPv6Loopback().WithZone(strings.Repeat("z", 256)), 1)},
		"zone of the client has 256 bytes":           {Client: netip.IPv6Loopback().WithZone(strings.Repeat("z", 256))},
		"zone of the original address has 256 bytes": {Original: netip.AddrPortFrom(netip.IPv6Loopback().WithZone(strings.Repeat("z", 256)), 1)},
	} {
		_, err := h.EncodedLen()
		require.ErrorIs(t, err, redirect.ErrTooLarge)
		require.ErrorContains(t, err, want)
	}
}

// What is as large as can be kept comes back.
func TestLargestHopIsKept(t *testing.T) {
	names := strings.Repeat("a", 1<<16-1)
	far := netip.AddrPortFrom(netip.IPv6Loopback().WithZone(strings.Repeat("z", 255)), 1)
	h := &redirect.Hop{Provider: names, Callout: names, AppID: names, Original: far, Target: far, Record: make([]byte, redirect.MaxBlob), Context: make([]byte, redirect.MaxBlob)}
	got, err := redirect.DecodeHop(encode(t, h))
	require.NoError(t, err)
	require.Equal(t, h, got)
	for _, h := range []*redirect.Hop{{Record: make([]byte, redirect.MaxBlob+1)}, {Context: make([]byte, redirect.MaxBlob+1)}} {
		b, err := h.AppendBinary(nil)
		require.NoError(t, err)
		_, err = redirect.DecodeHop(b)
		require.ErrorIs(t, err, redirect.ErrCorrupt)
		require.ErrorContains(t, err, "byte 44: a blob of more than 4096 bytes")
	}
}

func TestCorruptNamesTheByte(t *testing.T) {
	b := encode(t, fullHop())
	for want, change := range map[string]func(b []byte) []byte{
		"47 bytes, the fixed part has 48":          func(b []byte) []byte { return b[:47] },
		"byte 36: version 2, this program reads 1": func(b []byte) []byte { b[36] = 2; return b },
		"address family 9 is unknown":              func(b []byte) []byte { b[37] = 0x91; return b },
		"byte 69: an empty zone":                   func(b []byte) []byte { b[68] = 0; return b },
		"bytes too many":                           func(b []byte) []byte { return append(b, 0) },
		"7 bytes wanted, 6 are left":               func(b []byte) []byte { return b[:len(b)-1] },
	} {
		_, err := redirect.DecodeHop(change(append([]byte(nil), b...)))
		require.ErrorIs(t, err, redirect.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
}

// Any bytes are refused, or are the one encoding of the hop they give.
func FuzzDecodeHop(f *testing.F) {
	f.Add(encode(f, fullHop()))
	f.Add(encode(f, &redirect.Hop{Serial: 1, Record: []byte{0}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := string(b)
		h, err := redirect.DecodeHop(b)
		if err != nil {
			require.ErrorIs(t, err, redirect.ErrCorrupt)
			return
		}
		require.Equal(t, before, string(encode(t, h)))
	})
}
