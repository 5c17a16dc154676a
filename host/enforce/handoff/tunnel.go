package handoff

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/internal/oneline"
)

// maxReply bounds what an HTTP proxy answers, with all interim answers.
const maxReply = 16 << 10

// A tunnel is a conversation with an HTTP proxy.
type tunnel struct {
	exchange
	header []byte
	all    int // bytes of the headers before
}

func newTunnel(p *Proxy, to netip.AddrPort) (*exchange, error) {
	if strings.Contains(p.User, ":") {
		return nil, &Error{Kind: HTTPConnect, Cause: NotAllowed, Why: "takes no user with a colon in its name"}
	}
	t := new(tunnel)
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", to, to)
	if p.User != "" {
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password)))
	}
	b.WriteString("\r\n")
	t.out = []byte(b.String())
	t.expect(len(endOfHeader), t.more)
	return &t.exchange, nil
}

var endOfHeader = []byte("\r\n\r\n")

// more takes a part of the header. What follows its end is the destination's, so
// no more is read than what the end still lacks.
func (t *tunnel) more() error {
	seen := len(t.header)
	t.header = append(t.header, t.got...)
	for i := seen; i < len(t.header); i++ {
		if t.header[i] == '\n' && (i == 0 || t.header[i-1] != '\r') { // What others take for the end would pass unseen here.
			return t.fail(Unknown, "does not speak HTTP: a line of its answer ends with a line feed alone")
		}
	}
	lacks := 0
	for ; !bytes.HasSuffix(t.header, endOfHeader[:len(endOfHeader)-lacks]); lacks++ {
	}
	switch {
	case lacks == 0:
		return t.answer()
	case t.all+len(t.header) > maxReply:
		return t.fail(Unknown, "answered with a header of more than %d bytes", maxReply)
	}
	t.expect(lacks, t.more)
	return nil
}

func (t *tunnel) fail(cause Cause, format string, args ...any) error {
	return &Error{Kind: HTTPConnect, Cause: cause, Why: fmt.Sprintf(format, args...)}
}

// answer is the whole header.
func (t *tunnel) answer() error {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(t.header)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return t.fail(Unknown, "does not speak HTTP: %s", short(err.Error()))
	}
	resp.Body.Close()
	status := short(resp.Status)
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 100 && code < 200 && code != http.StatusSwitchingProtocols: // Another answer follows.
		t.all += len(t.header)
		t.header = t.header[:0]
		t.expect(len(endOfHeader), t.more)
		return nil
	case code == http.StatusProxyAuthRequired || code == http.StatusUnauthorized: // tinyproxy says the latter
		return t.fail(NotAllowed, "does not take the credentials, or wants some: %s", status)
	case code == http.StatusForbidden || code == http.StatusMethodNotAllowed:
		return t.fail(NotAllowed, "does not allow it: %s", status)
	case code == http.StatusGatewayTimeout:
		return t.fail(TimedOut, "got no answer from the destination: %s", status)
	default:
		return t.fail(Refused, "did not connect: %s", status)
	}
}

// short keeps a reason to a line that can be read: a proxy may say a header long.
func short(s string) string { return oneline.Clean(s[:min(len(s), 100)]) }
