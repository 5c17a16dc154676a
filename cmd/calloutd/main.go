// Command calloutd runs connection-redirect callouts on real connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"unicode"

	_ "github.com/calloutd/calloutd/cmd/calloutd/internal/descriptors" // looks before the others begin
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
)

// The main thread must stay out of the pool: a seccomp filter is installed on
// a thread that ends afterwards, and the main one never would.
func init() { runtime.LockOSThread() }

func main() {
	guest.CompileChild()
	root, out := newRoot(), &output{file: os.Stdout}
	root.SetOut(out)
	cmd, err := root.ExecuteContextC(context.Background())
	err = wrongArguments(cmd, err)
	if e, ok := errors.AsType[endedBy](err); ok {
		err = endOf(e.Signal)
	}
	var code exitCode
	if lost := out.failure(); lost != nil && (err == nil || errors.As(err, &code)) {
		err = lost // A report that nobody can read says neither yes nor no.
	}
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		complain(os.Stderr, err)
		os.Exit(codeTool)
	}
}

// Exit codes of calloutd's own, as env and docker have them; what run's command
// returns passes through.
const (
	codeNo        = 1   // blocked, mistakes, something required is missing
	codeTool      = 125 // calloutd itself failed
	codeNotRun    = 126 // the command cannot be executed
	codeNotFound  = 127 // there is no such command
	codeSignalled = 128 // and the signal's number
)

// An exitCode is all there is to say any more.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// complain prints an error. Mistakes in a file begin with their place, so that
// editors find it.
func complain(out io.Writer, err error) {
	for _, m := range mistakes(err) {
		fmt.Fprintln(out, strings.ReplaceAll(cleanLines(m), "\n", "\n    ")) // What has more lines is one mistake.
	}
}

// cleanLines is policytrace.Clean for text of more lines: an error may have the names that
// a module gives its imports and functions.
func cleanLines(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// mistakes are the errors that an error joins, a line each.
func mistakes(err error) []string {
	if err == nil {
		return nil
	}
	var out []string
	for _, err := range flatten(err) {
		var p policyfile.Problem
		if errors.As(err, &p) {
			out = append(out, p.Error())
		} else {
			out = append(out, fmt.Sprintf("calloutd: %v", err))
		}
	}
	return out
}

// flatten lists the errors that an error joins.
func flatten(err error) []error {
	var all []error
	switch e := err.(type) {
	case policyfile.Errors:
		for _, p := range e {
			all = append(all, p)
		}
	case interface{ Unwrap() []error }:
		if !joined(err, e.Unwrap()) {
			return []error{err}
		}
		for _, x := range e.Unwrap() {
			all = append(all, flatten(x)...)
		}
	default:
		all = []error{err}
	}
	return all
}

// joined reports whether an error says what others say, and nothing else.
func joined(err error, others []error) bool {
	var lines []string
	for _, e := range others {
		lines = append(lines, e.Error())
	}
	return err.Error() == strings.Join(lines, "\n")
}
