package localproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/wsk/wsknet"
)

const (
	// peekTime is how long the client may take to say whom it asks for. A client
	// that waits for the server to speak first asks for nobody. A slow machine must
	// not make a name unknown: it is as long as nginx's preread_timeout.
	peekTime = 30 * time.Second
	peekMost = 64 << 10 // bytes
)

// Peek starts a proxy that carries each connection on like Forward, once it knows
// the name that its first bytes ask for: that of a TLS ClientHello (SNI) or of an
// HTTP request (Host). The name is set on its own socket, so that filters and
// callouts see it as FWPM_CONDITION_PEER_NAME. Without one, that is not known.
func Peek(ctx context.Context, o Options) (*Proxy, error) {
	return o.serve(ctx, "peek", func(ctx context.Context, in *wsknet.Conn) error {
		stop := context.AfterFunc(ctx, in.Abort)
		defer stop()
		if err := in.SetReadDeadline(time.Now().Add(peekTime)); err != nil {
			return err
		}
		var read bytes.Buffer
		name := PeerName(io.TeeReader(io.LimitReader(in, peekMost), &read))
		if err := in.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		return o.carry(ctx, in, read.Bytes(), name)
	})
}

// PeerName reads as much of a client's first bytes as say whom it asks for. It is
// empty if they do not, or not in time.
func PeerName(r io.Reader) string {
	b := bufio.NewReaderSize(r, 16)
	first, err := b.Peek(1)
	if err != nil {
		return ""
	}
	const handshake = 22 // the TLS record type
	if first[0] == handshake {
		return clean(serverName(b))
	}
	req, err := http.ReadRequest(bufio.NewReader(b))
	if err != nil {
		return ""
	}
	return clean(req.Host)
}

var errPeeked = errors.New("peeked")

// serverName is the SNI of a ClientHello, which the library's server reads and
// never answers.
func serverName(r io.Reader) (name string) {
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name = hello.ServerName
		return nil, errPeeked
	}}
	_ = tls.Server(mute{Reader: r}, config).Handshake() // It ends with errPeeked, or there is no name.
	return name
}

// A mute connection reads and says nothing.
type mute struct {
	net.Conn // None: TLS does not look further.
	io.Reader
}

func (m mute) Read(b []byte) (int, error)     { return m.Reader.Read(b) }
func (mute) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (mute) SetWriteDeadline(time.Time) error { return nil }

// clean is a host name without port and final dot, in lower case; empty if it is
// none that DNS could have.
func clean(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return ""
	}
	return host
}

// named sets what the peer is called, after control.
func named(name string, peer netip.AddrPort, control func(string, string, syscall.RawConn) error) func(string, string, syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		if err := control(network, address, c); err != nil || name == "" {
			return err
		}
		return c.(interface {
			SetPeerName(context.Context, netip.AddrPort, string) error
		}).SetPeerName(context.Background(), peer, name)
	}
}
