// Package jscover makes a script count which of its statements run, as go tool cover
// does for Go. It knows what the engine of sdk/js offers for it.
package jscover

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dop251/goja/parser"
)

// What the engine has: a function of the module that says where the counters are, of
// 32 bits each, and how many.
const (
	Export = "callout_script_counters"
	Max    = 16384
)

// A Statement is what a counter is of, by the lines where it stands, from 1. Statements
// in it are their own.
type Statement struct{ Line, End int }

// Count returns a script that does what src does and counts. The n-th counter is not
// zero when the n-th statement has run. Lines stay what they are. An error says why the
// script cannot be measured; the engine may take it all the same.
func Count(src string) (counted string, statements []Statement, err error) {
	program, err := parse(src)
	if err != nil {
		return "", nil, firstError(err)
	}
	c := &counter{src: src, counters: unused(src), seen: map[uintptr]bool{}}
	c.program(program)
	switch {
	case c.err != nil:
		return "", nil, c.err
	case len(c.statements) > Max:
		return "", nil, fmt.Errorf("it has %d statements, the limit is %d", len(c.statements), Max)
	}
	counted = c.text()
	if _, err := parse(counted); err != nil {
		return "", nil, fmt.Errorf("with counters it is no script: %w", firstError(err))
	}
	return counted, c.statements, nil
}

// Mistake is where a text stops being a script, from 1, in bytes of the line; zeros if
// it is one for this parser, which is not the engine's.
func Mistake(src string) (line, column int) {
	_, err := parse(src)
	if e := parserError(err); e != nil {
		return e.Position.Line, e.Position.Column
	}
	return 0, 0
}

// unused is a name that the script does not have.
func unused(src string) string {
	name := "$ran"
	for strings.Contains(src, name) {
		name += "_"
	}
	return name
}

// An insertion is text that the script gets.
type insertion struct {
	at   int // byte of the source
	text string
}

func (c *counter) insert(at int, text string) {
	c.insertions = append(c.insertions, insertion{at, text})
}

// text is the script with what was inserted; what is for the same place in its order.
func (c *counter) text() string {
	slices.SortStableFunc(c.insertions, func(a, b insertion) int { return a.at - b.at })
	var out strings.Builder
	done := 0
	for _, i := range c.insertions {
		out.WriteString(c.src[done:i.at] + i.text)
		done = i.at
	}
	return out.String() + c.src[done:]
}

// line is that of a byte.
func (c *counter) line(at int) int { return 1 + strings.Count(c.src[:at], "\n") }

// firstError is a parser's, without the errors that follow from it.
func firstError(err error) error {
	if e := parserError(err); e != nil {
		return fmt.Errorf("line %d: %s", e.Position.Line, e.Message)
	}
	return err
}

func parserError(err error) *parser.Error {
	var all parser.ErrorList
	if errors.As(err, &all) && len(all) > 0 {
		return all[0]
	}
	return nil
}
