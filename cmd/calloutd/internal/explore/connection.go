package explore

import (
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// A Connection is one in words: each field as somebody wrote it.
type Connection struct {
	Program  string `json:"program"` // empty: not known
	User     string `json:"user"`    // a number, a name of this system, or unknown
	Groups   string `json:"groups"`  // numbers
	PID      string `json:"pid"`
	To       string `json:"to"`
	From     string `json:"from"` // empty: a socket that is not bound
	Protocol string `json:"protocol"`
	// HostName is what a proxy of kind dns would know that the destination is called,
	// PeerName what the connection asks for (SNI, Host): a proxy of kind peek learns it.
	HostName string `json:"host_name"`
	PeerName string `json:"peer_name"`
	Inbound  bool   `json:"inbound"`
}

// Field is the text of one, by its name in JSON.
func (c *Connection) Field(name string) string {
	return map[string]string{"program": c.Program, "user": c.User, "groups": c.Groups, "pid": c.PID, "to": c.To, "from": c.From,
		"protocol": c.Protocol, "host_name": c.HostName, "peer_name": c.PeerName}[name]
}

// A Mistake is what is wrong with a field, and where.
type Mistake struct {
	Field string `json:"field"`
	// At and Length are the part of the field, in characters. Length zero: something
	// is missing there.
	At      int    `json:"at"`
	Length  int    `json:"length"`
	Message string `json:"message"`
}

// Incoming is the connection as the layers know it, or every mistake in it. Local
// and Remote are the program's.
func (c *Connection) Incoming() (fwps.Incoming, []Mistake) {
	r := reader{}
	in := fwps.Incoming{AppID: strings.TrimSpace(c.Program)}
	r.user(c.User, &in)
	r.groups(c.Groups, &in)
	in.ProcessID = r.pid(c.PID)
	in.Protocol = r.protocol(c.Protocol)
	in.Remote = r.address("to", c.To)
	switch {
	case strings.TrimSpace(c.From) != "":
		in.Local = r.address("from", c.From)
	case c.Inbound:
		r.whole("from", c.From, "an inbound connection comes from somewhere: expected the address and port of who connects")
	}
	r.name("host_name", c.HostName)
	r.name("peer_name", c.PeerName)
	if in.Local.IsValid() && in.Remote.IsValid() && in.Local.Addr().Is4() != in.Remote.Addr().Is4() {
		r.whole("from", c.From, "an address of another family than where the connection goes, %s", in.Remote)
	}
	if c.Inbound {
		in.Local, in.Remote, in.Inbound = in.Remote, in.Local, true
	}
	return in, r.mistakes
}

// A reader reads fields and collects what is wrong.
type reader struct{ mistakes []Mistake }

// bad notes a mistake about the bytes of a field from one place to another.
func (r *reader) bad(field, text string, from, to int, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{field, utf8.RuneCountInString(text[:from]), utf8.RuneCountInString(text[from:to]), fmt.Sprintf(format, args...)})
}

// whole is bad for all of a field.
func (r *reader) whole(field, text, format string, args ...any) {
	from := len(text) - len(strings.TrimLeftFunc(text, unicode.IsSpace))
	r.bad(field, text, from, max(from, len(strings.TrimRightFunc(text, unicode.IsSpace))), format, args...)
}

func (r *reader) user(text string, in *fwps.Incoming) {
	id := strings.TrimSpace(text)
	if id == "" || id == "unknown" {
		return
	}
	if u, err := user.Lookup(id); err == nil {
		id = u.Uid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		r.whole("user", text, "expected a number, a user of this system, or unknown")
	}
	in.UserID, in.UserKnown = uint32(n), true
}

func (r *reader) groups(text string, in *fwps.Incoming) {
	at := 0
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == ',' || unicode.IsSpace(c) }) {
		at += strings.Index(text[at:], word)
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			r.bad("groups", text, at, at+len(word), "expected the numbers of groups, such as 27, 1000")
		}
		in.Groups = append(in.Groups, uint32(n))
		at += len(word)
	}
}

func (r *reader) pid(text string) uint32 {
	s := strings.TrimSpace(text)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		r.whole("pid", text, "expected the number of a process")
	}
	return uint32(n)
}

func (r *reader) protocol(text string) uint8 {
	p, err := policytest.ParseProtocol(strings.TrimSpace(text))
	if err != nil {
		r.whole("protocol", text, "expected tcp, udp or a number up to 255")
	}
	return p
}

// maxName is the longest name that DNS has, in bytes.
const maxName = 253

func (r *reader) name(field, text string) {
	at := strings.IndexFunc(text, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
	switch {
	case len(text) > maxName:
		from := maxName
		for from > 0 && !utf8.RuneStart(text[from]) {
			from--
		}
		r.bad(field, text, from, len(text), "a name has at most %d bytes", maxName)
	case at >= 0 && text != "":
		_, n := utf8.DecodeRuneInString(text[at:])
		r.bad(field, text, at, at+n, "a name has no spaces")
	default:
		if at := strings.IndexFunc(text, unnamed); at >= 0 {
			_, n := utf8.DecodeRuneInString(text[at:])
			r.bad(field, text, at, at+n, "a name has letters of the DNS (xn--... for others), digits, dots, dashes and underscores")
		}
	}
}

// unnamed says that no proxy learns a name with this.
func unnamed(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._", c)
}

// Learned is a name as proxies learn it.
func Learned(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

const wantAddress = "expected an address and a port, such as 198.51.100.7:80 or [2001:db8::7]:80"

// address finds which part of an address is wrong.
func (r *reader) address(field, text string) netip.AddrPort {
	s := strings.TrimSpace(text)
	a, err := netip.ParseAddrPort(s)
	if err == nil {
		return a
	}
	from := len(text) - len(strings.TrimLeftFunc(text, unicode.IsSpace))
	colon := strings.LastIndexByte(s, ':')
	_, bare := netip.ParseAddr(s)
	switch {
	case bare == nil && colon >= 0:
		r.whole(field, text, "an IPv6 address with a port has brackets, such as %s", bracketed(s, colon))
	case bare == nil:
		r.bad(field, text, from+len(s), from+len(s), "the port is missing, such as %s:80", s)
	case colon < 0:
		r.whole(field, text, "%s", wantAddress)
	default:
		r.parts(field, text, from, colon, s)
	}
	return netip.AddrPort{}
}

// bracketed is an IPv6 address with a port: its own, if its last digits can be one.
func bracketed(s string, colon int) string {
	if a, err := netip.ParseAddrPort("[" + s[:colon] + "]" + s[colon:]); err == nil {
		return a.String()
	}
	return "[" + s + "]:80"
}

// parts is for what has an address, a colon and a port.
func (r *reader) parts(field, text string, from, colon int, s string) {
	host, port := s[:colon], s[colon+1:]
	if strings.HasPrefix(port, "//") {
		r.whole(field, text, "an address is no URL: %s", wantAddress)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		r.bad(field, text, from+colon+1, from+len(s), "a port is a number from 0 to 65535")
		return
	}
	if !strings.ContainsAny(host, ":[]") && strings.ContainsFunc(host, unicode.IsLetter) {
		r.bad(field, text, from, from+colon, "a name is looked up before a program connects: expected its address")
		return
	}
	at := 0
	for part := range strings.SplitSeq(host, ".") {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != part {
			break
		}
		at += len(part) + 1
	}
	if end := strings.IndexByte(host[min(at, len(host)):], '.'); at < len(host) && strings.Count(host, ".") == 3 && !strings.Contains(host, ":") {
		if end < 0 {
			end = len(host) - at
		}
		r.bad(field, text, from+at, from+at+end, "each part of an IPv4 address is a number from 0 to 255")
		return
	}
	r.bad(field, text, from, from+colon, "%s", wantAddress)
}
