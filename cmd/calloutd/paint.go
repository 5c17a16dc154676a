package main

import (
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/term"
)

// A painter colours words where somebody looks at a terminal.
type painter bool

// paintFor asks whether out is a terminal that takes colours and whether the
// user wants them (NO_COLOR). A Windows console may not take them.
func paintFor(out io.Writer) painter {
	return painter(isTerminal(out) && os.Getenv("NO_COLOR") == "" && runtime.GOOS != "windows")
}

// isTerminal reports whether somebody looks at out, on a terminal that can move.
func isTerminal(out io.Writer) bool {
	f, ok := out.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func (p painter) paint(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// word colours an outcome.
func (p painter) word(s string) string {
	switch {
	case strings.HasPrefix(s, "block"), s == "no", s == "refused", s == "failed":
		return p.paint("1;31", s)
	case strings.HasPrefix(s, "redirect"):
		return p.paint("1;36", s)
	case s == "permit", s == "yes":
		return p.paint("32", s)
	}
	return s
}
