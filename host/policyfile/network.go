package policyfile

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

func (r *reader) set(n *yaml.Node) {
	f, id := r.object(n, &setKeys, "set")
	if (f.keys["prefixes"] == nil) == (f.keys["file"] == nil) {
		r.fail(at(n), "", "a set has either prefixes or file")
	}
	var all []netip.Prefix
	for _, word := range f.words("prefixes") {
		p, _ := parsePrefix(word)
		all = append(all, p)
	}
	r.lines(f.vals["file"], func(file string, words []word) {
		if len(words) > 1 {
			r.failIn(file, words[1].place, "", "expected one network a line, found a second word %q", short(words[1].text))
			return
		}
		if p := r.network(file, words[0]); p.IsValid() {
			all = append(all, p)
		}
	})
	if len(all) == 0 {
		r.noteEmpty(f, "set", id, "prefixes", "no address is in it")
	}
	r.sets[id] = all
}

// noteEmpty notes that a list has nothing in it.
func (r *reader) noteEmpty(f fields, kind, id, key, so string) {
	v := f.vals["file"]
	if v == nil {
		v = f.vals[key]
	}
	if v != nil {
		r.notes = append(r.notes, note{at(v), fmt.Sprintf("%s %q is empty: %s", kind, id, so)})
	}
}

func (r *reader) table(n *yaml.Node) {
	f, id := r.object(n, &tableKeys, "table")
	if (f.keys["rows"] == nil) == (f.keys["file"] == nil) {
		r.fail(at(n), "", "a table has either rows or file")
	}
	var all []Row
	lines := map[netip.Prefix]int{}
	add := func(file string, p place, row Row) {
		if first := lines[row.Prefix]; first > 0 {
			r.failIn(file, p, "", "network %s stands twice, first in line %d", row.Prefix, first)
		}
		lines[row.Prefix] = p.line
		all = append(all, row)
	}
	for _, n := range f.list("rows") {
		if row := r.mapping(n, &rowKeys); row.vals["prefix"] != nil && row.vals["value"] != nil {
			p, _ := parsePrefix(row.text("prefix"))
			add(r.file, at(row.vals["prefix"]), Row{p, int32(row.number("value"))})
		}
	}
	r.lines(f.vals["file"], func(file string, words []word) {
		if len(words) != 2 {
			last := words[min(2, len(words)-1)]
			r.failIn(file, last.place, "", "expected a network and %s on each line, found %d words", rowValue, len(words))
			return
		}
		p := r.network(file, words[0])
		v, err := strconv.ParseUint(words[1].text, 10, 31)
		if err != nil {
			r.failIn(file, words[1].place, "", "expected %s, found %q", rowValue, short(words[1].text))
		}
		if p.IsValid() && err == nil {
			add(file, words[0].place, Row{p, int32(v)})
		}
	})
	if len(all) == 0 {
		r.noteEmpty(f, "table", id, "rows", "no address has a number in it")
	}
	r.tables[id] = all
}

// A word of a line of a file.
type word struct {
	place
	text string
}

// network reads a word. It is not valid after a mistake.
func (r *reader) network(file string, w word) netip.Prefix {
	p, near := parsePrefix(w.text)
	if !p.IsValid() {
		r.failIn(file, w.place, near, "expected %s, found %q", prefix{}, short(w.text))
	}
	return p
}

// lines gives take the words of every line of the file that n names, if any, but
// for comments. A mistake has its place in that file.
func (r *reader) lines(n *yaml.Node, take func(file string, words []word)) {
	if n == nil || r.full() {
		return
	}
	file := Under(filepath.Dir(r.file), n.Value)
	src, err := r.open(file)
	switch {
	case err != nil:
		r.fail(at(n), "", "file: %v", err)
		return
	case len(src) > MaxListSize:
		r.fail(at(n), "", "file: %s is larger than %d bytes", file, MaxListSize)
		return
	}
	if p, what := badText(src); what != "" {
		r.failIn(file, p, "", "%s: expected UTF-8 text", what)
		return
	}
	number := 0
	for line := range strings.Lines(string(bytes.TrimPrefix(src, byteOrderMark))) {
		number++
		if words := split(line, number); len(words) > 0 {
			take(file, words)
		}
		if r.full() {
			return
		}
	}
}

// split finds the words of a line before its comment.
func split(line string, number int) []word {
	line, _, _ = strings.Cut(line, "#")
	var words []word
	for column := 1; ; {
		rest := strings.TrimLeftFunc(line, unicode.IsSpace)
		if rest == "" {
			return words
		}
		column += utf8.RuneCountInString(line[:len(line)-len(rest)])
		end := strings.IndexFunc(rest, unicode.IsSpace)
		if end < 0 {
			end = len(rest)
		}
		words = append(words, word{place{number, column}, rest[:end]})
		column, line = column+utf8.RuneCountInString(rest[:end]), rest[end:]
	}
}
