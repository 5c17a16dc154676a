package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce/seccomp"
	"github.com/calloutd/calloutd/host/flight"
)

// watch runs a command with everything permitted and keeps its connections in a
// flight file. What the command returned is the first error.
func watch(cmd *cobra.Command, args []string, tmp, file string) (code, err error) {
	all := filepath.Join(tmp, "open.yaml")
	if err := os.WriteFile(all, []byte("version: 1\n"), 0o600); err != nil {
		return nil, err
	}
	t := newTracer(cmd.ErrOrStderr(), false, false)
	kept := books{tape: tape{file: file}}
	r, end, err := kept.putInForce(cmd.Context(), all, t)
	if err != nil {
		return nil, err
	}
	defer end()
	child := exec.Command(args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	state, err := seccomp.Run(cmd.Context(), seccomp.Options{ALE: r.Enforcer(), Logf: t.logf, OnBlocked: t.onBlocked}, child)
	if err != nil {
		return nil, notRun(args[0], err)
	}
	if c := shellCode(state); c != 0 {
		return exitCode(c), nil
	}
	return nil, nil
}

// maxSeen bounds the different connections that a draft is made of.
var maxSeen = 100_000 // a variable for a test

// anyPort stands for a port that the system chose.
const anyPort = 60001

// seenIn are the connections of a file, each once: neither their process, nor when,
// nor a port that the system chose makes a difference.
func seenIn(file string, errs io.Writer) (seen []*flight.Entry, err error) {
	f, err := openFlight(file, errs)
	if err != nil {
		return nil, err
	}
	known, more := map[string]bool{}, 0
	for e, err := range f.entries() {
		if err != nil {
			return nil, err
		}
		if !nameable(e.Program) {
			if !known[e.Program] {
				complain(errs, fmt.Errorf("%q is left out: a policy cannot name a program with such characters", e.Program))
			}
			known[e.Program] = true
			continue
		}
		plain := &flight.Entry{Protocol: e.Protocol, Inbound: e.Inbound, Program: e.Program, User: e.User, UserKnown: e.UserKnown, Groups: e.Groups, Remote: e.Remote}
		if e.Inbound {
			plain.Local, plain.Remote = e.Local, netip.AddrPortFrom(e.Remote.Addr(), anyPort)
		}
		switch key := fmt.Sprint(*plain); {
		case known[key]:
		case len(seen) == maxSeen:
			more++
		default:
			known[key] = true
			seen = append(seen, plain)
		}
	}
	if more > 0 {
		complain(errs, fmt.Errorf("%s came after the first %s different ones and are left out: the policy may block them", connections(more), count(maxSeen)))
	}
	if len(seen) == 0 {
		return nil, errors.New("there was no connection, so there is nothing to permit")
	}
	return seen, nil
}

// nameable reports whether a policy can have a text.
func nameable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}
