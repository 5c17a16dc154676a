package policymodel

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/calloutd/calloutd/host/policyfile"
)

// A rule is one of Windows Firewall, as netsh prints it.
type rule struct {
	line   int
	name   string
	values map[string]string
	lines  map[string]int      // of the values
	rest   map[string][]string // of lists, in further lines
	icmp   []icmpRow
}

// An icmpRow is a type and a code of ICMP; below zero is any.
type icmpRow struct{ kind, code int }

// The keys of netsh advfirewall firewall show rule, with and without verbose.
var netshKeys = []string{"Rule Name", "Description", "Enabled", "Direction", "Profiles", "Grouping", "LocalIP", "RemoteIP", "Protocol",
	"LocalPort", "RemotePort", "Edge traversal", "Program", "Service", "InterfaceTypes", "Security", "Rule source", "Action"}

// A netshReader reads what netsh printed.
type netshReader struct {
	file  string
	rules []*rule
	errs  policyfile.Errors
	last  string // the key that the line before belongs to
}

// readNetsh reads the output of netsh advfirewall firewall show rule name=all, strictly:
// what it does not know is a mistake, with its place. The error is policyfile.Errors.
func readNetsh(file string, src []byte) ([]*rule, error) {
	r := &netshReader{file: file}
	text, err := decode(src)
	if err != "" {
		r.fail(1, 1, "", "%s", err)
		return nil, r.errs
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if at := badByte(line); at >= 0 {
			r.fail(n, at+1, "", "byte %#02x is no UTF-8: save what netsh prints as UTF-8 (chcp 65001) or UTF-16", line[at])
			continue
		}
		r.line(n, line)
		if len(r.errs) > policyfile.MaxProblems {
			break
		}
	}
	for _, rule := range r.rules {
		r.complete(rule)
	}
	if len(r.errs) > 0 {
		return nil, r.errs
	}
	return r.rules, nil
}

// decode takes UTF-8, and UTF-16 with a byte order mark, which is what PowerShell
// writes.
func decode(src []byte) (text, wrong string) {
	switch {
	case len(src) > policyfile.MaxSize*2:
		return "", fmt.Sprintf("the file is larger than %d bytes", policyfile.MaxSize*2)
	case bytes.HasPrefix(src, []byte("\xff\xfe")):
		if len(src)%2 != 0 {
			return "", "half a character at the end of UTF-16 text"
		}
		units := make([]uint16, 0, len(src)/2)
		for i := 2; i < len(src); i += 2 {
			units = append(units, uint16(src[i])|uint16(src[i+1])<<8)
		}
		return string(utf16.Decode(units)), ""
	}
	return strings.TrimPrefix(string(src), "\ufeff"), ""
}

func badByte(s string) int {
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func (r *netshReader) fail(line, column int, near, format string, args ...any) {
	if len(r.errs) <= policyfile.MaxProblems {
		r.errs = append(r.errs, policyfile.Problem{File: r.file, Line: line, Column: column, Message: fmt.Sprintf(format, args...), Nearest: near})
	}
}

func (r *netshReader) line(n int, line string) {
	var rule *rule
	if len(r.rules) > 0 {
		rule = r.rules[len(r.rules)-1]
	}
	key, value, isKey := strings.Cut(line, ":")
	known := isKey && slices.Contains(netshKeys, key)
	switch {
	case strings.TrimSpace(line) == "":
	case known && key == "Rule Name":
		r.begin(n, strings.TrimSpace(value))
	case line == "Ok.", line == "No rules match the specified criteria.", strings.Trim(line, "-") == "":
	case rule == nil:
		r.fail(n, 1, "", "expected Rule Name: and a name, found %q: this is not what netsh advfirewall firewall show rule name=all prints on an English system", short(line))
	case known:
		r.value(rule, n, key, value)
	case r.last == "Description": // It may have lines, and nobody reads it.
	case line[0] == ' ':
		r.more(rule, n, strings.Fields(line))
	case isKey && r.last != "":
		r.fail(n, 1, policyfile.Nearest(key, netshKeys), "unknown key %q, expected one of netsh (%s)", short(key), strings.Join(netshKeys, ", "))
	default:
		r.fail(n, 1, "", "expected a key and its value, found %q", short(line))
	}
}

func (r *netshReader) begin(n int, name string) {
	r.last = "Rule Name"
	if name == "" {
		r.fail(n, 1, "", "Rule Name: the rule has no name")
		name = "a rule"
	}
	r.rules = append(r.rules, &rule{line: n, name: name, values: map[string]string{}, lines: map[string]int{}, rest: map[string][]string{}})
}

func (r *netshReader) value(rule *rule, n int, key, value string) {
	r.last = key
	if first := rule.lines[key]; first > 0 {
		r.fail(n, 1, "", "key %q stands twice in one rule, first in line %d", key, first)
		return
	}
	rule.values[key], rule.lines[key] = strings.TrimSpace(value), n
}

// more is a line that goes on with the value before: a row of ICMP types, or further
// addresses and ports.
func (r *netshReader) more(rule *rule, n int, words []string) {
	switch r.last {
	case "Protocol":
		if len(words) == 2 && words[0] == "Type" && words[1] == "Code" {
			return
		}
		row, ok := parseICMP(words)
		if !ok {
			r.fail(n, 1, "", "expected an ICMP type and its code, numbers up to 255 or Any, found %q", short(strings.Join(words, " ")))
			return
		}
		rule.icmp = append(rule.icmp, row)
	case "LocalIP", "RemoteIP", "LocalPort", "RemotePort", "Profiles", "Grouping", "InterfaceTypes":
		rule.rest[r.last] = append(rule.rest[r.last], strings.TrimSuffix(strings.Join(words, ""), ","))
	default:
		r.fail(n, 1, "", "expected a key and its value, found %q", short(strings.Join(words, " ")))
	}
}

func parseICMP(words []string) (row icmpRow, ok bool) {
	if len(words) != 2 {
		return row, false
	}
	for i, to := range []*int{&row.kind, &row.code} {
		if words[i] == "Any" {
			*to = -1
			continue
		}
		n, err := strconv.ParseUint(words[i], 10, 8)
		if err != nil {
			return row, false
		}
		*to = int(n)
	}
	return row, true
}

// complete joins lists, and finds what a rule must have and has not, and words that are none.
func (r *netshReader) complete(rule *rule) {
	for key, rest := range rule.rest {
		rule.values[key] = strings.Join(append([]string{strings.TrimSuffix(rule.values[key], ",")}, rest...), ",")
	}
	for _, k := range []struct {
		key   string
		words []string
	}{
		{"Enabled", []string{"Yes", "No"}}, {"Direction", []string{"In", "Out"}}, {"Action", []string{"Allow", "Block", "Bypass"}},
	} {
		switch v, ok := rule.values[k.key]; {
		case !ok:
			r.fail(rule.line, 1, "", "rule %q has no %s", short(rule.name), k.key)
		case !slices.Contains(k.words, v):
			r.fail(rule.lines[k.key], 1, policyfile.Nearest(v, k.words), "%s: expected %s, found %q", k.key, strings.Join(k.words, " or "), short(v))
		}
	}
}

func short(s string) string {
	const most = 60
	if c := []rune(s); len(c) > most {
		return string(c[:most]) + "..."
	}
	return s
}
