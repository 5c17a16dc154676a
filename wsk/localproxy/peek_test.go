package localproxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk/localproxy"
)

// hello is the ClientHello that a client with this configuration sends.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = tls.Client(near, config).Handshake() // Nobody answers.
		near.Close()
	})
	b := make([]byte, 5)
	_, err := io.ReadFull(far, b)
	require.NoError(t, err)
	body := make([]byte, int(b[3])<<8|int(b[4]))
	_, err = io.ReadFull(far, body)
	require.NoError(t, err)
	far.Close()
	wg.Wait()
	return append(b, body...)
}

// fragmented is a handshake message in records of n bytes.
func fragmented(record []byte, n int) (out []byte) {
	for body := record[5:]; len(body) > 0; {
		part := body[:min(n, len(body))]
		out = append(append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part))), part...)
		body = body[len(part):]
	}
	return out
}

func TestPeerName(t *testing.T) {
	good := hello(t, &tls.Config{ServerName: "Www.Example.org"})
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"TLS":                        {good, "www.example.org"},
		"TLS in small records":       {fragmented(good, 7), "www.example.org"},
		"TLS 1.2":                    {hello(t, &tls.Config{ServerName: "old.example", MaxVersion: tls.VersionTLS12}), "old.example"},
		"TLS without a name":         {hello(t, &tls.Config{InsecureSkipVerify: true}), ""},
		"TLS to an address":          {hello(t, &tls.Config{ServerName: "192.0.2.7"}), ""},
		"TLS that ends early":        {good[:len(good)/2], ""},
		"HTTP":                       {[]byte("GET / HTTP/1.1\r\nHost: Example.org:8080\r\n\r\n"), "example.org"},
		"HTTP with a whole URL":      {[]byte("GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n"), "a.example"},
		"HTTP CONNECT":               {[]byte("CONNECT c.example:443 HTTP/1.1\r\nHost: c.example:443\r\n\r\n"), "c.example"},
		"HTTP with a final dot":      {[]byte("GET / HTTP/1.1\r\nHost: example.org.\r\n\r\n"), "example.org"},
		"HTTP without a name":        {[]byte("GET / HTTP/1.0\r\n\r\n"), ""},
		"HTTP that ends early":       {[]byte("GET / HTTP/1.1\r\nHost: example.org"), ""},
		"HTTP with a name of no DNS": {[]byte("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), ""},
		"HTTP/2 without TLS":         {[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ""},
		"a name that is long":        {[]byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("a.", 126) + "a\r\n\r\n"), strings.Repeat("a.", 126) + "a"},
		"a name that is too long":    {[]byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("a.", 126) + "aa\r\n\r\n"), ""},
		"another protocol":           {[]byte("SSH-2.0-OpenSSH_9.2\r\n"), ""},
		"nothing":                    {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, localproxy.PeerName(bytes.NewReader(c.bytes)))
			require.Equal(t, c.want, localproxy.PeerName(iotest.OneByteReader(bytes.NewReader(c.bytes))), "a byte at a time")
		})
	}
}

// Whatever a client sends, a name is one that DNS could have.
func FuzzPeerName(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "www.example.org"}))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: example.org:8080\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := localproxy.PeerName(bytes.NewReader(b))
		require.LessOrEqual(t, len(name), 253)
		require.Equal(t, "", strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._"))
	})
}

// The proxy's own connection has the name that the client asked for, at both
// layers, and everything that was read of the client goes on.
func TestPeek(t *testing.T) {
	w := open(t)
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	p, err := localproxy.Peek(t.Context(), localproxy.Options{Client: w.Client.Client, Listen: loopback, Logf: w.logf})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	var mu sync.Mutex
	names := map[redirect.State]string{}
	w.AtConnect(t, func(c *fwps.Call, v *fwps.Verdict) {
		mu.Lock()
		defer mu.Unlock()
		names[c.State] = c.In.Other[fwpm.ConditionPeerName].Text
		if c.State == redirect.NotRedirected {
			v.Redirect, v.To, v.TargetPID = true, p.Addr(), 1000
			v.Context = sockaddr.Append(v.Context, c.In.Remote)
		}
	})
	w.Add(t, fwpm.Filter{ID: 8, Name: "not this one", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
		Conditions: []fwpm.Condition{{Field: fwpm.ConditionPeerName, Match: fwp.MatchEqual, Value: fwp.Blob("bad.example")}}})

	const request = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"
	c := w.dial(origin.Addr().String())
	_, err = io.WriteString(c, request)
	require.NoError(t, err)
	far, err := origin.Accept()
	require.NoError(t, err)
	got := make([]byte, len(request))
	_, err = io.ReadFull(far, got)
	require.NoError(t, err)
	require.Equal(t, request, string(got))
	require.NoError(t, far.Close())
	require.NoError(t, c.Close())
	mu.Lock()
	require.Equal(t, map[redirect.State]string{redirect.NotRedirected: "", redirect.RedirectedBySelf: "good.example"}, names)
	mu.Unlock()

	c = w.dial(origin.Addr().String())
	defer c.Close()
	_, err = c.Write(hello(t, &tls.Config{ServerName: "bad.example"}))
	require.NoError(t, err)
	_, err = io.ReadAll(c)
	requireReset(t, err)
}

// Who says much, or ends, without saying whom it asks for is carried on with all of that.
func TestPeekOfWhoAsksForNobody(t *testing.T) {
	for name, request := range map[string]string{
		"much": "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 100_000),
		"ends": "GET / HTTP/1.1\r\nHost: example.org",
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			got := make(chan string, 1)
			to := serve(t, func(c *net.TCPConn) {
				defer c.Close()
				b := make([]byte, len(request))
				_, _ = io.ReadFull(c, b)
				got <- string(b)
				_, _ = io.Copy(io.Discard, c)
			})
			w.start(localproxy.Peek, true)
			c := w.dial(to.String())
			defer c.Close()
			_, err := io.WriteString(c, request)
			require.NoError(t, err)
			if name == "ends" {
				require.NoError(t, c.CloseWrite())
			}
			select {
			case b := <-got:
				require.Equal(t, request, b)
			case <-time.After(28 * time.Second): // It waits half a minute for more.
				require.Fail(t, "it waits for more")
			}
			require.NoError(t, c.CloseWrite())
			_, err = io.ReadAll(c)
			require.NoError(t, err, "the end is passed on")
		})
	}
}
