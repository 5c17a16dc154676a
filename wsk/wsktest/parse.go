package wsktest

import (
	"fmt"
	"strings"
)

// A statement is a line of a script:
//
//	[label:] verb arg... key=value... [-> result key=value...]
//
// With a label the call is not waited for; await does that. Words with spaces
// are quoted. A # begins a comment.
type statement struct {
	pos   string // file:line
	label string
	verb  string
	args  []string
	keys  map[string]string
	want  string // the result after the arrow, empty if there is none
	wants map[string]string
}

func (s *statement) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", s.pos, s.verb, fmt.Errorf(format, args...))
}

func parseScript(c Case) ([]*statement, error) {
	var out []*statement
	for i, line := range strings.Split(c.script, "\n") {
		pos := fmt.Sprintf("%s:%d", c.file, c.line+i)
		words, err := split(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pos, err)
		}
		if len(words) == 0 {
			continue
		}
		st, err := parseStatement(pos, words)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

func parseStatement(pos string, words []string) (*statement, error) {
	st := &statement{pos: pos, keys: map[string]string{}, wants: map[string]string{}}
	if l, ok := strings.CutSuffix(words[0], ":"); ok {
		st.label, words = l, words[1:]
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("%s: a label without a call", pos)
	}
	st.verb, words = words[0], words[1:]
	keys, arrow := st.keys, false
	for i, w := range words {
		if w == "->" {
			if arrow || i+1 == len(words) {
				return nil, st.errorf("one -> and a result after it")
			}
			arrow, keys = true, st.wants
			continue
		}
		k, v, isKey := strings.Cut(w, "=")
		switch {
		case isKey && k != "" && !strings.ContainsAny(k, "\"$:"):
			if _, twice := keys[k]; twice {
				return nil, st.errorf("%s is there twice", k)
			}
			keys[k] = unquote(v)
		case arrow && st.want == "":
			st.want = w
		case arrow:
			return nil, st.errorf("%q after the result", w)
		default:
			st.args = append(st.args, unquote(w))
		}
	}
	return st, nil
}

func unquote(s string) string { return strings.ReplaceAll(s, `"`, "") }

// split cuts a line into words; quotes keep spaces and are left in place.
func split(line string) ([]string, error) {
	var words []string
	var w strings.Builder
	quoted := false
	flush := func() {
		if w.Len() > 0 {
			words = append(words, w.String())
			w.Reset()
		}
	}
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
			w.WriteRune(r)
		case quoted:
			w.WriteRune(r)
		case r == '#':
			flush()
			return words, nil
		case r == ' ' || r == '\t':
			flush()
		default:
			w.WriteRune(r)
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed")
	}
	flush()
	return words, nil
}
