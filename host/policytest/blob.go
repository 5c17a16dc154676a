package policytest

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

// blob reads the bytes of a context or record.
func (r *reader) blob(v value, s *Step) {
	if v.Kind == yaml.ScalarNode {
		if b := r.literal(v); v.Value != None {
			r.want(v, s).Bytes = b
		} else {
			r.want(v, s)
		}
		return
	}
	vs := r.mapping(v.Node, v.key, []string{"text", "hex", "sockaddr"})
	if len(vs) != 1 {
		if v.Kind == yaml.MappingNode && len(v.Content) != 2 {
			r.fail(v.Node, "", "%s: expected one of text, hex, sockaddr", v.key)
		}
		return
	}
	inner := value{v.key, vs[0].Node}
	switch vs[0].key {
	case "text":
		r.want(inner, s).Bytes = r.literal(inner)
	case "hex":
		b, err := hex.DecodeString(strings.ReplaceAll(inner.Value, " ", ""))
		if err != nil || inner.Kind != yaml.ScalarNode || inner.Tag == "!!null" {
			r.bad(inner, "hexadecimal digits, two for a byte")
		}
		w := r.want(inner, s)
		w.Bytes, w.form = b, asHex
	case "sockaddr":
		w := r.want(inner, s)
		w.form = asSockaddr
		for _, n := range r.list(inner) {
			at, end := r.span(n)
			w.more = append(w.more, span{at, end})
			w.Bytes = sockaddr.Append(w.Bytes, r.address(value{v.key, n}))
		}
	}
}

// literal is a text that may be empty.
func (r *reader) literal(v value) []byte {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
		r.bad(v, "text")
	}
	return []byte(v.Value)
}

// span is where a scalar on one line stands in the file, two zeros if that cannot
// be said.
func (r *reader) span(n *yaml.Node) (at, end int) {
	if n.Kind != yaml.ScalarNode || n.Line < 1 || n.Line > len(r.lines) {
		return 0, 0
	}
	at = r.lines[n.Line-1]
	for range n.Column - 1 { // Columns count characters.
		_, size := utf8.DecodeRune(r.src[at:])
		at += size
	}
	switch rest := string(r.src[at:]); {
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, "'"):
		return at, at + quoted(rest)
	case strings.HasPrefix(rest, n.Value):
		return at, at + len(n.Value)
	}
	return 0, 0
}

// quoted is the length of the quoted text that s begins with.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0] && s[0] == '\'' && strings.HasPrefix(s[i+1:], "'"):
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return len(s)
}
