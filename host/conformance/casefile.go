package conformance

import (
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"golang.org/x/tools/txtar"
)

// A Case shows one rule: a policy, callouts, what happens, and the whole trace
// that must come of it.
type Case struct {
	File string
	ID   string // the rule or scenario
	Rule string // what it says, in one sentence

	options, policy, callouts, script section
	Want                              string
}

// A section is the lines of one file of the archive, with their place.
type section struct {
	file  string
	first int // line number of the first line
	text  string
}

// A line is one line of a section, with comments taken off.
type line struct {
	at   string // file:line
	text string
	deep bool // indented: belongs to the line before
}

func (s section) lines() []line {
	var out []line
	n := s.first
	for text := range strings.Lines(s.text) {
		text = strings.TrimRight(text, "\n")
		if code, _, _ := strings.Cut(text, "#"); strings.TrimSpace(code) != "" {
			out = append(out, line{fmt.Sprintf("%s:%d", s.file, n), strings.TrimSpace(code), code[0] == ' '})
		}
		n++
	}
	return out
}

// Setup is what a case begins with: its options, policy and callouts.
func (c *Case) Setup() string {
	var b strings.Builder
	for _, s := range []struct {
		name string
		section
	}{{"options", c.options}, {"policy", c.policy}, {"callouts", c.callouts}} {
		if s.text != "" {
			fmt.Fprintf(&b, "-- %s --\n%s", s.name, s.text)
		}
	}
	return b.String()
}

// errorf is an error with the line's place.
func (l line) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", l.at, fmt.Errorf(format, args...))
}

// Parse reads a case file. It is strict: an unknown key, section or word is an
// error, so that a case that is misspelt cannot pass.
func Parse(file string, data []byte) (*Case, error) {
	ar := txtar.Parse(data)
	c := &Case{File: file}
	header := section{file, 1, string(ar.Comment)}
	for _, l := range header.lines() {
		key, value, ok := strings.Cut(l.text, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok:
			return nil, l.errorf("expected a key and a value, got %q", l.text)
		case key == "id" && c.ID == "":
			c.ID = value
		case key == "rule" && c.Rule == "":
			c.Rule = value
		default:
			return nil, l.errorf("key %q is unknown or stands twice; expected id, rule", key)
		}
	}
	if c.ID == "" || c.Rule == "" {
		return nil, fmt.Errorf("%s:1: a case begins with the keys id and rule", file)
	}
	at := 1 + strings.Count(string(ar.Comment), "\n")
	places := map[string]*section{"options": &c.options, "policy": &c.policy, "callouts": &c.callouts, "script": &c.script}
	for _, f := range ar.Files {
		at++
		switch s := places[f.Name]; {
		case f.Name == "want":
			c.Want = string(f.Data)
		case s == nil || s.file != "":
			return nil, fmt.Errorf("%s:%d: section %q is unknown or stands twice; expected options, policy, callouts, script, want", file, at-1, f.Name)
		default:
			*s = section{file, at, string(f.Data)}
		}
		at += strings.Count(string(f.Data), "\n")
	}
	if c.script.file == "" {
		return nil, fmt.Errorf("%s: there is no script", file)
	}
	return c, nil
}

// words splits a line at spaces; a word in double quotes may have some.
func words(s string) []string {
	var out []string
	for {
		s = strings.TrimSpace(s)
		if s == "" {
			return out
		}
		end := strings.IndexByte(s, ' ')
		if q := strings.IndexByte(s, '"'); q >= 0 && (end < 0 || q < end) {
			if close := strings.IndexByte(s[q+1:], '"'); close >= 0 {
				word := s[:q] + s[q+1:q+1+close]
				s = s[q+1+close+1:]
				out = append(out, word)
				continue
			}
		}
		if end < 0 {
			return append(out, s)
		}
		out = append(out, s[:end])
		s = s[end:]
	}
}

// args are the words of a command: some plain, then some key=value or flags.
type args struct {
	l    line
	rest []string
}

func newArgs(l line) *args { return &args{l, words(l.text)} }

// next takes the next word; what says what it is.
func (a *args) next(what string) (string, error) {
	if len(a.rest) == 0 {
		return "", a.l.errorf("expected %s at the end of %q", what, a.l.text)
	}
	w := a.rest[0]
	a.rest = a.rest[1:]
	return w, nil
}

// layer takes the next word, which is a layer.
func (a *args) layer() (fwpm.LayerID, error) {
	name, err := a.next("a layer")
	if err != nil {
		return 0, err
	}
	return readLayer(a.l, name)
}

// options takes the remaining words. Those in flags stand alone; those in keys
// have a value.
func (a *args) options(flags, keys string) (map[string]string, error) {
	out := map[string]string{}
	for _, w := range a.rest {
		k, v, valued := strings.Cut(w, "=")
		list := flags
		if valued {
			list = keys
		}
		if !hasWord(list, k) {
			return nil, a.l.errorf("%q is unknown here; expected one of: %s", w, strings.TrimSpace(flags+" "+withEquals(keys)))
		}
		if _, dup := out[k]; dup {
			return nil, a.l.errorf("%q stands twice", k)
		}
		if !valued {
			v = "true"
		}
		out[k] = v
	}
	a.rest = nil
	return out, nil
}

func (a *args) end() error {
	if len(a.rest) > 0 {
		return a.l.errorf("%q is too much", strings.Join(a.rest, " "))
	}
	return nil
}

func hasWord(list, w string) bool {
	for f := range strings.FieldsSeq(list) {
		if f == w {
			return true
		}
	}
	return false
}

func withEquals(keys string) string {
	var out []string
	for k := range strings.FieldsSeq(keys) {
		out = append(out, k+"=")
	}
	return strings.Join(out, " ")
}
