package policytest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// An edit replaces a part of a file.
type edit struct {
	at, end int
	text    string
}

// Update returns the file of cases with what came in the place of what was wanted,
// and nothing else changed: comments, order and layout stay. An expectation that
// cannot be rewritten where it stands is an error with its place.
func Update(s *Suite, rs []Result) ([]byte, error) {
	var edits []edit
	var errs []error
	for i := range rs {
		if rs[i].Err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", rs[i].where(), rs[i].Case.Name, rs[i].Err))
		}
		for _, sd := range rs[i].Differences {
			for _, d := range sd.Differences {
				e, err := d.edits()
				if err != nil {
					errs = append(errs, s.problem(d.want.Place, "", d.Key+": "+err.Error()))
				}
				edits = append(edits, e...)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Compare(b.at, a.at) })
	out := slices.Clone(s.src)
	for _, e := range edits {
		out = slices.Replace(out, e.at, e.end, []byte(e.text)...)
	}
	if _, err := Parse(s.File, out); err != nil {
		return nil, fmt.Errorf("the updated file would not be right: %w", err)
	}
	return out, nil
}

var errByHand = errors.New("it cannot be rewritten where it stands, change it by hand")

func (d *Difference) edits() ([]edit, error) {
	w := d.want
	got := d.Got
	if d.bytes != nil || w.form != asText {
		switch got = show(d.bytes, w.form); {
		case len(w.more) > 0:
			return w.sockaddrEdits(d.bytes)
		case w.form != asHex && got != None && got != string(d.bytes):
			return nil, errors.New("the bytes that came are no text: write {hex: ...}")
		case w.form == asHex && got == None:
			got = ""
		}
	}
	if w.end <= w.at {
		return nil, errByHand
	}
	return []edit{{w.at, w.end, scalar(got)}}, nil
}

func (w *Want) sockaddrEdits(b []byte) ([]edit, error) {
	got := Addresses(b)
	if len(got) != len(w.more) {
		return nil, errByHand
	}
	var out []edit
	for i, s := range w.more {
		if s.end <= s.at {
			return nil, errByHand
		}
		out = append(out, edit{s.at, s.end, scalar(got[i])})
	}
	return out, nil
}

// scalar is a text as YAML, on one line.
func scalar(s string) string {
	switch {
	case strings.ContainsFunc(s, func(c rune) bool { return !strconv.IsPrint(c) }):
		return strconv.Quote(s) // YAML has these escapes.
	case plain(s):
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// plain reports whether a text is read as itself without quotes, in a list too.
func plain(s string) bool {
	if strings.ContainsAny(s, ",[]{}#&*!|>'\"%@`\n") || strings.Contains(s, ": ") || strings.TrimSpace(s) != s {
		return false
	}
	var back any
	if yaml.Unmarshal([]byte(s), &back) != nil {
		return false
	}
	text, ok := back.(string)
	return ok && text == s
}
