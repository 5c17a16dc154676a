package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// Limits of a file.
const (
	MaxSize     = 1 << 20  // bytes
	MaxDepth    = 32       // of lists and mappings in each other
	MaxListSize = 32 << 20 // bytes, of a set or a table
)

// readFile reads one byte over the limit at most, for the reader to see that
// it is too long.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := wholefile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// document reads the one YAML document of a file, nil after a mistake that
// leaves nothing to read.
func (r *reader) document(src []byte) *yaml.Node {
	if len(src) > MaxSize {
		r.fail(start, "", "the file is larger than %d bytes", MaxSize)
		return nil
	}
	if p, what := badText(src); what != "" {
		r.fail(p, "", "%s: expected UTF-8 text", what)
		return nil
	}
	doc, err := r.load(src)
	switch {
	case err != nil:
		r.syntax(err, src)
	case doc == nil:
		r.fail(start, "", "the file is empty: expected %s", r.keys)
	case r.plain(doc):
		return doc
	}
	return nil
}

// load returns the one document, nil if there is none.
func (r *reader) load(src []byte) (*yaml.Node, error) {
	// Aliases are refused later; the loader need not follow any.
	loader, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(MaxDepth), loaderlimits.AliasNone())))
	if err != nil {
		return nil, err
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) != 1:
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := loader.Load(&second); {
	case err == nil:
		r.fail(at(&second), "", "a second YAML document: %s is one", r.noun)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return doc.Content[0], nil
}

var start = place{1, 1}

// syntax reports what the YAML loader found. When that is the end of the file,
// the place to look at is where what has no end begins.
func (r *reader) syntax(err error, src []byte) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		r.fail(start, "", "YAML: %v", err)
		return
	}
	p, end := place{le.Mark.Line, le.Mark.Column}, lastPlace(src)
	if le.ContextMark.Line > 0 && (p.after(end) || le.Message == noColon) {
		p = place{le.ContextMark.Line, le.ContextMark.Column}
	}
	if p.after(end) {
		p = end
	}
	p = place{max(1, p.line), max(1, p.column)}
	msg := le.Message
	if le.ContextMsg != "" {
		msg = le.ContextMsg + ": " + msg
	}
	if indentedByTab(src, p) {
		msg = "a tab: lines are indented with spaces"
	}
	r.fail(p, "", "YAML: %s%s", msg, yamlHint(le.Message))
}

// noColon is found out in the line after.
const noColon = "could not find expected ':'"

// yamlHint is what people mostly did who are told this by the parser.
func yamlHint(msg string) string {
	const indented = " (is the line indented as those that belong with it? is there a bracket too many?)"
	switch {
	case msg == "mapping values are not allowed in this context":
		return " (is the line indented as those that belong with it? is there a blank after each colon? a text with a colon is quoted)"
	case msg == "did not find expected '-' indicator", msg == "did not find expected key":
		return indented
	case msg == noColon:
		return " (a key, a colon and a blank)"
	case strings.HasPrefix(msg, "unknown anchor "):
		return " (a text that begins with * is quoted)"
	case msg == "did not find expected ',' or '}'", msg == "did not find expected ',' or ']'":
		return " (is a bracket missing? a text that ends with a colon, as 2001:db8:: does, is quoted)"
	case msg == "found unknown escape character":
		return ` (in "" a \ begins an escape: a path with \ is written in '')`
	}
	return ""
}

// indentedByTab reports whether a place is in the blanks that begin a line, and one
// of them is a tab.
func indentedByTab(src []byte, p place) bool {
	n := 0
	for line := range bytes.Lines(src) {
		if n++; n == p.line {
			blanks := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
			return p.column <= len(blanks) && bytes.ContainsRune(blanks, '\t')
		}
	}
	return false
}

func (p place) after(q place) bool {
	return p.line > q.line || p.line == q.line && p.column > q.column
}

// plain refuses what a policy does without: anchors, aliases, merge keys and
// tags. Each value stands where it is used, so each mistake has one place.
func (r *reader) plain(n *yaml.Node) bool {
	ok := true
	switch {
	case n.Kind == yaml.AliasNode:
		r.fail(at(n), "", "alias *%s: %s has no anchors and aliases; write the value where it is used", short(n.Value), r.noun)
		return false // What it stands for is not part of this place, and may be a cycle.
	case n.Anchor != "":
		r.fail(at(n), "", "anchor &%s: %s has no anchors and aliases; write the value where it is used", short(n.Anchor), r.noun)
		ok = false
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(at(n), "", "tag %s: %s has no tags", short(n.Tag), r.noun)
		ok = false
	case n.Tag == "!!merge":
		r.fail(at(n), "", "merge key <<: %s has no anchors and aliases; write the keys where they are used", r.noun)
		ok = false
	}
	for _, c := range n.Content {
		ok = r.plain(c) && ok
	}
	return ok
}

// byteOrderMark begins what some editors of Windows call UTF-8. YAML allows it.
var byteOrderMark = []byte("\ufeff")

// badText finds the first thing that is not UTF-8 text of lines that end in \n
// or \r\n. YAML knows more line ends, but editors do not count them.
func badText(src []byte) (place, string) {
	p := place{1, 1}
	if bytes.HasPrefix(src, []byte("\xff\xfe")) || bytes.HasPrefix(src, []byte("\xfe\xff")) {
		return p, "UTF-16"
	}
	for i := len(src) - len(bytes.TrimPrefix(src, byteOrderMark)); i < len(src); {
		c, n := utf8.DecodeRune(src[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			return p, fmt.Sprintf("byte %#02x", src[i])
		case c == '\n':
			p = place{p.line + 1, 0}
		case c == '\t', c == '\r' && bytes.HasPrefix(src[i:], []byte("\r\n")):
		case c == '\r':
			return p, "a \\r without \\n, which ends no line"
		case unicode.IsControl(c), c >= 0x2028 && c <= 0x2029, c >= 0xfdd0 && !unicode.IsPrint(c):
			return p, fmt.Sprintf("control character %U", c)
		}
		p.column++
		i += n
	}
	return place{}, ""
}

// lastPlace is the last place of a text that holds something.
func lastPlace(src []byte) place {
	src = bytes.TrimRight(src, "\r\n")
	line := src[bytes.LastIndexByte(src, '\n')+1:]
	return place{bytes.Count(src, []byte("\n")) + 1, max(1, utf8.RuneCount(line))}
}

// short is a text that fits into a message.
func short(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "..."
}
