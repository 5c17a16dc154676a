package handoff

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"
)

var (
	to4 = netip.MustParseAddrPort("198.51.100.7:443")
	to6 = netip.MustParseAddrPort("[2001:db8::7]:443")
)

// A peer says what it was given, in pieces of at most piece bytes, and hears.
type peer struct {
	says  *bytes.Reader
	piece int
	heard bytes.Buffer
	end   error
}

func (p *peer) Write(b []byte) (int, error) { return p.heard.Write(b) }

func (p *peer) Read(b []byte) (int, error) {
	n, err := p.says.Read(b[:min(len(b), p.piece)])
	if err == io.EOF && p.end != nil {
		err = p.end
	}
	return n, err
}

// A conversation is all that is said on a connection, and the outcome; what the
// destination says right after the proxy must be left for the program.
type conversation struct {
	name  string
	proxy Proxy
	to    netip.AddrPort
	says  string
	heard string // empty: not looked at
	cause Cause
	why   string // empty: it succeeds
}

var conversations = []conversation{
	{"socks IPv4", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00" + "\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", 0, ""},
	{"socks IPv6", Proxy{Kind: SOCKS5}, to6, "\x05\x00" + "\x05\x00\x00\x04" + strings.Repeat("\x00", 18),
		"\x05\x01\x00" + "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x01\xbb", 0, ""},
	{"socks v4-mapped is IPv4", Proxy{Kind: SOCKS5}, netip.MustParseAddrPort("[::ffff:198.51.100.7]:443"), "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00" + "\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", 0, ""},
	{"socks answers with a name", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x00\x00\x03\x04host\x00\x50", "", 0, ""},
	{"socks password", Proxy{Kind: SOCKS5, User: "me", Password: "secret"}, to4, "\x05\x02\x01\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x02\x00\x02" + "\x01\x02me\x06secret" + "\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", 0, ""},
	{"socks needs no password", Proxy{Kind: SOCKS5, User: "me"}, to4, "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "", 0, ""},
	{"socks wrong password", Proxy{Kind: SOCKS5, User: "me"}, to4, "\x05\x02\x01\x02", "", NotAllowed, "does not take the credentials (status 2)"},
	{"socks wants a password", Proxy{Kind: SOCKS5}, to4, "\x05\xff", "", NotAllowed, "wants to know who asks: give it credentials"},
	{"socks wants a password that was not offered", Proxy{Kind: SOCKS5}, to4, "\x05\x02", "", NotAllowed, "wants to know who asks: give it credentials"},
	{"socks takes nothing", Proxy{Kind: SOCKS5, User: "me"}, to4, "\x05\xff", "", NotAllowed, "takes neither a password nor none"},
	{"socks GSSAPI", Proxy{Kind: SOCKS5}, to4, "\x05\x01", "", NotAllowed, "wants the authentication method 1, which was not offered"},
	{"socks failed", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x01\x00\x01", "", Unknown, "failed in general"},
	{"socks not allowed", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x02\x00\x01", "", NotAllowed, "does not allow it by its rules"},
	{"socks no network", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x03\x00\x01", "", NetworkUnreachable, "cannot reach the network"},
	{"socks no host", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x04\x00\x01", "", HostUnreachable, "cannot reach the host"},
	{"socks refused", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x05\x00\x01", "", Refused, "was refused by the destination"},
	{"socks too far", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x06\x00\x01", "", TimedOut, "found the destination too far away (TTL expired)"},
	{"socks no such command", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x07\x00\x01", "", Unknown, "does not know the command"},
	{"socks no such address", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x08\x00\x01", "", Unknown, "does not know the address type"},
	{"socks first unknown reply", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x09\x00\x01", "", Unknown, "failed (reply 9)"},
	{"socks reply of SOCKS4", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x00\x5a\x00\x01", "", Unknown, "does not speak SOCKS5: it answered with byte 0x00"},
	{"socks user of 255 bytes", Proxy{Kind: SOCKS5, User: strings.Repeat("u", 255), Password: strings.Repeat("p", 255)}, to4, "\x05\x02\x01\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x02\x00\x02" + "\x01\xff" + strings.Repeat("u", 255) + "\xff" + strings.Repeat("p", 255) + "\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", 0, ""},
	{"socks user of 256 bytes", Proxy{Kind: SOCKS5, User: strings.Repeat("u", 256)}, to4, "", "", NotAllowed, "takes names and passwords of up to 255 bytes"},
	{"socks password of 256 bytes", Proxy{Kind: SOCKS5, User: "me", Password: strings.Repeat("p", 256)}, to4, "", "", NotAllowed, "takes names and passwords of up to 255 bytes"},
	{"socks unknown reply", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x63\x00\x01", "", Unknown, "failed (reply 99)"},
	{"socks unknown address", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x00\x00\x09", "", Unknown, "answered with an address of the unknown kind 9"},
	{"socks is HTTP", Proxy{Kind: SOCKS5}, to4, "HTTP/1.1 400", "", Unknown, "does not speak SOCKS5: it answered with byte 0x48"},
	{"socks closes", Proxy{Kind: SOCKS5}, to4, "\x05", "", Unknown, "closed the connection without an answer"},
	{"tunnel", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\n\r\n", 0, ""},
	{"tunnel IPv6", Proxy{Kind: HTTPConnect}, to6, "HTTP/1.0 200 Connection established\r\n\r\n",
		"CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n\r\n", 0, ""},
	{"tunnel password", Proxy{Kind: HTTPConnect, User: "me", Password: "secret"}, to4, "HTTP/1.1 200 OK\r\n\r\n",
		"CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n", 0, ""},
	{"tunnel interim answer", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "", 0, ""},
	{"tunnel last interim answer", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 199 More\r\n\r\nHTTP/1.1 299 OK\r\n\r\n", "", 0, ""},
	{"tunnel moved", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 300 Elsewhere\r\n\r\n", "", Refused, "did not connect: 300 Elsewhere"},
	{"tunnel before all answers", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 099 Odd\r\n\r\n", "", Refused, "did not connect: 099 Odd"},
	{"tunnel no such method", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 405 Never\r\n\r\n", "", NotAllowed, "does not allow it: 405 Never"},
	{"tunnel begins with a line feed", Proxy{Kind: HTTPConnect}, to4, "\nHTTP/1.1 200 OK\r\n\r\n", "", Unknown,
		"does not speak HTTP: a line of its answer ends with a line feed alone"},
	{"tunnel refuses at length", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 403 " + strings.Repeat("x", 1000) + "\r\n\r\n", "", NotAllowed,
		"does not allow it: 403 " + strings.Repeat("x", 96)},
	{"tunnel is no HTTP at length", Proxy{Kind: HTTPConnect}, to4, strings.Repeat("x", 1000) + "\r\n\r\n", "", Unknown,
		`does not speak HTTP: malformed HTTP response "` + strings.Repeat("x", 100-len(`malformed HTTP response "`))},
	{"tunnel wants a password", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "", NotAllowed,
		"does not take the credentials, or wants some: 407 Proxy Authentication Required"},
	{"tunnel wrong password", Proxy{Kind: HTTPConnect, User: "me"}, to4, "HTTP/1.1 401 Unauthorized\r\n\r\n", "", NotAllowed,
		"does not take the credentials, or wants some: 401 Unauthorized"},
	{"tunnel forbidden", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 403 Filtered\r\n\r\n", "", NotAllowed, "does not allow it: 403 Filtered"},
	{"tunnel bad gateway", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 502 Bad Gateway\r\n\r\n", "", Refused, "did not connect: 502 Bad Gateway"},
	{"tunnel timeout", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 504 Slow\r\n\r\n", "", TimedOut, "got no answer from the destination: 504 Slow"},
	{"tunnel is no HTTP", Proxy{Kind: HTTPConnect}, to4, "SSH-2.0-x\r\n\r\n", "", Unknown, `does not speak HTTP: malformed HTTP response "SSH-2.0-x"`},
	{"tunnel too long", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxReply), "", Unknown,
		"answered with a header of more than 16384 bytes"},
	{"tunnel interim answers without end", Proxy{Kind: HTTPConnect}, to4, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxReply/25+1), "", Unknown,
		"answered with a header of more than 16384 bytes"},
	{"tunnel says what moves the cursor", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 403 \x1b[2Jno\rcalloutd: all is well\r\n\r\n", "", NotAllowed,
		"does not allow it: 403 \ufffd[2Jno\ufffdcalloutd: all is well"},
	{"tunnel ends its header otherwise", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\n\nwhat the destination says\r\n\r\n", "", Unknown,
		"does not speak HTTP: a line of its answer ends with a line feed alone"},
	{"tunnel ends its header otherwise in between", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\r\nA: b\n\r\nwhat the destination says\r\n\r\n", "", Unknown,
		"does not speak HTTP: a line of its answer ends with a line feed alone"},
	{"tunnel with two lengths", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "", Unknown,
		`does not speak HTTP: http: message cannot contain multiple Content-Length headers; got ["1" "2"]`},
	{"tunnel in chunks is one all the same", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", 0, ""},
	{"tunnel to another protocol", Proxy{Kind: HTTPConnect}, to4, "HTTP/1.1 101 Switching\r\n\r\n", "", Refused, "did not connect: 101 Switching"},
	{"tunnel user of two lines", Proxy{Kind: HTTPConnect, User: "me\r\nX", Password: "a\r\n\r\n"}, to4, "HTTP/1.1 200 OK\r\n\r\n",
		"CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\nProxy-Authorization: Basic bWUNClg6YQ0KDQo=\r\n\r\n", 0, ""},
	{"socks password of a zero and lines", Proxy{Kind: SOCKS5, User: "m\x00", Password: "\r\n"}, to4, "\x05\x02\x01\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x02\x00\x02" + "\x01\x02m\x00\x02\r\n" + "\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb", 0, ""},
	{"socks answers with the longest name", Proxy{Kind: SOCKS5}, to4, "\x05\x00" + "\x05\x00\x00\x03\xff" + strings.Repeat("x", 255+2), "", 0, ""},
	{"tunnel colon", Proxy{Kind: HTTPConnect, User: "a:b"}, to4, "", "", NotAllowed, "takes no user with a colon in its name"},
	{"socks to one link", Proxy{Kind: SOCKS5}, netip.MustParseAddrPort("[fe80::7%lo]:443"), "", "", NotAllowed, "was not asked: fe80::7 is of one link, and it cannot be told which"},
	{"tunnel to one link", Proxy{Kind: HTTPConnect}, netip.MustParseAddrPort("[fe80::7]:443"), "", "", NotAllowed, "was not asked: fe80::7 is of one link, and it cannot be told which"},
	{"no destination", Proxy{Kind: SOCKS5}, netip.AddrPort{}, "", "", Unknown, "was not asked: the destination is not known"},
	{"unknown kind", Proxy{Kind: "socks4"}, to4, "", "", Unknown, "is of an unknown kind"},
	{"socks long password", Proxy{Kind: SOCKS5, User: "u", Password: strings.Repeat("x", 256)}, to4, "", "", NotAllowed,
		"takes names and passwords of up to 255 bytes"},
}

func TestConversations(t *testing.T) {
	const banner = "220 the destination speaks first"
	for _, c := range conversations {
		for _, piece := range []int{1, 3, 1 << 20} {
			says := c.says
			if c.why == "" {
				says += banner
			}
			p := &peer{says: bytes.NewReader([]byte(says)), piece: piece}
			err := c.proxy.Introduce(p, &Request{Destination: c.to})
			if c.heard != "" {
				require.Equal(t, c.heard, p.heard.String(), c.name)
			}
			if c.why == "" {
				require.NoError(t, err, c.name)
				left, err := io.ReadAll(p.says)
				require.NoError(t, err)
				require.Equal(t, banner, string(left), "%s: what the destination says is the program's", c.name)
				continue
			}
			var e *Error
			require.ErrorAs(t, err, &e, c.name)
			require.Equal(t, Error{c.proxy.Kind, c.cause, c.why}, *e, c.name)
		}
	}
}

func TestDeadlineIsTold(t *testing.T) {
	p := &peer{says: bytes.NewReader(nil), piece: 1, end: os.ErrDeadlineExceeded}
	var e *Error
	require.ErrorAs(t, (&Proxy{Kind: SOCKS5}).Introduce(p, &Request{Destination: to4}), &e)
	require.Equal(t, Error{SOCKS5, TimedOut, "did not answer in time"}, *e)
	require.EqualError(t, e, "the socks5 proxy did not answer in time")
	p = &peer{says: bytes.NewReader(nil), piece: 1, end: errors.New("cut")}
	require.EqualError(t, (&Proxy{Kind: HTTPConnect}).Introduce(p, &Request{Destination: to4}), "the http-connect proxy did not answer: cut")
}

// The header as go-proxyproto reads it, with all that it can say.
func TestProxyProtocol(t *testing.T) {
	for _, c := range []struct{ name, from, to, wantFrom, wantTo string }{
		{"IPv4", "192.0.2.1:1000", "198.51.100.7:443", "192.0.2.1:1000", "198.51.100.7:443"},
		{"IPv6", "[2001:db8::1]:1000", "[2001:db8::7]:443", "[2001:db8::1]:1000", "[2001:db8::7]:443"},
		{"v4-mapped", "[::ffff:192.0.2.1]:1000", "[::ffff:198.51.100.7]:443", "192.0.2.1:1000", "198.51.100.7:443"},
		{"of two families", "127.0.0.1:1000", "[2001:db8::7]:443", "[::]:1000", "[2001:db8::7]:443"},
		{"of two families", "[::1]:1000", "198.51.100.7:443", "0.0.0.0:1000", "198.51.100.7:443"},
		{"nobody knows from where", "", "198.51.100.7:443", "0.0.0.0:0", "198.51.100.7:443"},
		{"nobody knows from where", "", "[2001:db8::7]:443", "[::]:0", "[2001:db8::7]:443"},
		{"zone", "[fe80::1%lo]:1000", "[fe80::2%lo]:443", "[fe80::1]:1000", "[fe80::2]:443"},
	} {
		p := &peer{says: bytes.NewReader(nil)}
		require.NoError(t, (&Proxy{Kind: ProxyProtocol}).Introduce(p, &Request{Source: source(c.from), Destination: netip.MustParseAddrPort(c.to),
			Authority: "example.org", UniqueID: []byte("unique"), Records: []byte("sealed"), Context: []byte("context")}))
		header := bytes.Clone(p.heard.Bytes())
		h, err := proxyproto.Read(bufio.NewReader(&p.heard))
		require.NoError(t, err)
		require.Equal(t, []string{c.wantFrom, c.wantTo}, []string{h.SourceAddr.String(), h.DestinationAddr.String()}, c.name)
		require.True(t, h.Command.IsProxy(), c.name)
		require.True(t, h.TransportProtocol.IsStream(), c.name)
		tlvs, err := h.TLVs()
		require.NoError(t, err)
		got := map[proxyproto.PP2Type]string{}
		for _, t := range tlvs {
			got[t.Type] = string(t.Value)
		}
		sum := binary.BigEndian.Uint32([]byte(got[proxyproto.PP2_TYPE_CRC32C]))
		require.True(t, bytes.HasSuffix(header, []byte(got[proxyproto.PP2_TYPE_CRC32C])))
		clear(header[len(header)-4:])
		require.Equal(t, crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)), sum)
		delete(got, proxyproto.PP2_TYPE_CRC32C)
		require.Equal(t, map[proxyproto.PP2Type]string{proxyproto.PP2_TYPE_AUTHORITY: "example.org", proxyproto.PP2_TYPE_UNIQUE_ID: "unique",
			proxyproto.PP2Type(TypeRecords): "sealed", proxyproto.PP2Type(TypeContext): "context"}, got)
	}
}

// source is the zero value for none.
func source(from string) (a netip.AddrPort) {
	if from != "" {
		a = netip.MustParseAddrPort(from)
	}
	return a
}

func TestProxyProtocolTooLong(t *testing.T) {
	const rest = 4 + 4 + 2 + 2 + 3 + 3 + crc32.Size // addresses, ports, the heads of two TLVs, the checksum
	r := &Request{Destination: to4, Source: to4, Context: make([]byte, 1<<16-1-rest)}
	p := &peer{says: bytes.NewReader(nil)}
	require.NoError(t, (&Proxy{Kind: ProxyProtocol}).Introduce(p, r))
	header := p.heard.Bytes()
	require.Len(t, header, len(proxySignature)+4+1<<16-1)
	require.Equal(t, "\xff\xff", string(header[len(proxySignature)+2:][:2]))
	p.heard.Reset()
	for _, more := range []int{1, 1 << 16, 1 << 20} { // A length of 16 bits would be right again for the second.
		r.Context = make([]byte, 1<<16-1-rest+more)
		require.EqualError(t, (&Proxy{Kind: ProxyProtocol}).Introduce(p, r), fmt.Sprintf("the proxy-protocol proxy was not told: records and context make %d bytes, and a header has at most 65535", 1<<16-1+more))
		require.Zero(t, p.heard.Len())
	}
}

func TestFinder(t *testing.T) {
	p := &Proxy{Kind: SOCKS5}
	require.Same(t, p, Only(to4, p).Find(to4))
	require.Nil(t, Only(to4, p).Find(to6))
	require.Nil(t, Finder(nil).Find(to4))
}

// Whatever a proxy answers, and however it is cut, the outcome is the same, no
// byte more is read than belongs to the answer, and a failure has a reason.
func FuzzReply(f *testing.F) {
	for _, c := range conversations {
		f.Add([]byte(c.says), c.proxy.Kind == SOCKS5, c.proxy.User != "")
	}
	f.Fuzz(func(t *testing.T, says []byte, isSocks, user bool) {
		p := Proxy{Kind: HTTPConnect}
		if isSocks {
			p.Kind = SOCKS5
		}
		if user {
			p.User = "me"
		}
		talk := func(piece int) (left int, heard string, err error) {
			c := &peer{says: bytes.NewReader(says), piece: piece}
			err = p.Introduce(c, &Request{Destination: to4})
			return c.says.Len(), c.heard.String(), err
		}
		left, heard, err := talk(1)
		left2, heard2, err2 := talk(1 << 20)
		require.Equal(t, heard, heard2)
		require.Equal(t, err, err2)
		if err != nil {
			require.NotEmpty(t, err.(*Error).Why)
			return
		}
		require.Equal(t, left, left2)
		consumed := says[:len(says)-left]
		if isSocks {
			require.GreaterOrEqual(t, len(consumed), 2+4+1+2, "the shortest has an empty name")
		} else {
			require.True(t, bytes.HasSuffix(consumed, []byte("\r\n\r\n")))
		}
	})
}
