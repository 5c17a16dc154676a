package policytest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A Change is a connection that two policies decide differently.
type Change struct {
	In            fwps.Incoming
	Before, After Outcome
	// Traces are those of both policies.
	BeforeTrace, AfterTrace string
}

// Kind is what changes, such as block->permit.
func (c *Change) Kind() string { return c.Before.Action + "->" + c.After.Action }

// Cause is the same for changes that the same filters make.
func (c *Change) Cause() string {
	return fmt.Sprint(c.Kind(), c.Before.cause(), c.After.cause(), c.In.Inbound)
}

func (o *Outcome) cause() string {
	for _, r := range o.Reasons {
		if r.Decided || o.Action != Permit {
			return fmt.Sprint(r.Layer.ForFamily(false), r.Name, r.Callout, r.Why)
		}
	}
	return ""
}

// A Comparison finds what two policies decide differently. It serves one goroutine.
type Comparison struct {
	before, after World
	traced        [2]*World
	recorders     [2]*Recorder
	used          int
}

// Compare begins a comparison.
func Compare(before, after *World) *Comparison {
	c := &Comparison{before: *before, after: *after, traced: [2]*World{before, after}}
	c.before.NewTrace = func() Trace { return silent{} }
	c.after.NewTrace = c.before.NewTrace
	return c
}

// silent writes nothing down: most connections do not change.
type silent struct{}

func (silent) Decision(*fwps.Incoming, *fwps.Decision) {}
func (silent) Redirect(ale.RedirectEvent)              {}
func (silent) Blocked(*ale.BlockedError)               {}
func (silent) String() string                          { return "" }

// renewed is after how many connections the recorders are made anew, so that the
// records of redirects that nobody accepts do not add up.
const renewed = 1024

// Decide decides a connection with both policies, nil if they agree: on the
// action, where it goes, and what the proxy and the callout are told.
func (c *Comparison) Decide(ctx context.Context, in fwps.Incoming) (*Change, error) {
	if c.used%renewed == 0 {
		c.recorders = [2]*Recorder{c.before.Record(), c.after.Record()}
	}
	c.used++
	ch := &Change{In: in}
	var err error
	if ch.Before, err = c.before.Decide(ctx, c.recorders[0], in); err != nil {
		return nil, err
	}
	if ch.After, err = c.after.Decide(ctx, c.recorders[1], in); err != nil {
		return nil, err
	}
	if c.agree(&ch.Before, &ch.After) {
		return nil, nil
	}
	for i, trace := range []*string{&ch.BeforeTrace, &ch.AfterTrace} {
		r := c.traced[i].Record()
		if _, err := c.traced[i].Decide(ctx, r, in); err != nil {
			return nil, err
		}
		*trace = r.written
	}
	return ch, nil
}

func (c *Comparison) agree(a, b *Outcome) bool {
	return a.Action == b.Action && c.before.place(a.Destination) == c.after.place(b.Destination) &&
		bytes.Equal(a.Context, b.Context) && bytes.Equal(a.Record, b.Record)
}

// place is an address, or the name of the policy's proxy that has it: the system
// chooses where proxies listen.
func (w *World) place(a netip.AddrPort) string {
	for id, p := range w.Proxies {
		if p == netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) {
			return "proxy:" + id
		}
	}
	return a.String()
}

// Describe is a connection in a line of the form that ParseConnection reads.
func Describe(in *fwps.Incoming) string {
	app := strconv.Quote(in.AppID)
	if len(app) == len(in.AppID)+2 && in.AppID != "" && !strings.ContainsAny(in.AppID, " #") {
		app = in.AppID
	}
	if in.Inbound {
		return fmt.Sprintf("%s %s %s, user %d, inbound from %s", app, in.Local, protocolWords(uint64(in.Protocol)), in.UserID, in.Remote)
	}
	s := fmt.Sprintf("%s %s %s", app, in.Remote, protocolWords(uint64(in.Protocol)))
	if in.UserID != ordinary().Incoming.UserID {
		s += fmt.Sprintf(" %d", in.UserID)
	}
	return s
}

// ParseConnection reads a line: PROGRAM DEST [PROTOCOL [USER]]. A program with
// spaces stands in double quotes; # begins a comment. An empty line is no
// connection. Its mistakes are policyfile.Problem with the column.
func ParseConnection(file string, line int, text string) (in fwps.Incoming, ok bool, err error) {
	words, columns := fields(text)
	if len(words) == 0 {
		return in, false, nil
	}
	bad := func(i int, format string, args ...any) (fwps.Incoming, bool, error) {
		return in, false, policyfile.Problem{File: file, Line: line, Column: columns[i], Message: fmt.Sprintf(format, args...)}
	}
	in = ordinary().Incoming
	switch {
	case len(words) < 2:
		return bad(0, "expected PROGRAM DEST [PROTOCOL [USER]], such as /usr/bin/curl 198.51.100.7:80 tcp")
	case len(words) > 4:
		return bad(4, "%q is too much: expected PROGRAM DEST [PROTOCOL [USER]]", words[4])
	}
	in.AppID = words[0]
	if in.Remote, err = netip.ParseAddrPort(words[1]); err != nil {
		return bad(1, "expected an address and a port, such as 198.51.100.7:80, found %q", words[1])
	}
	if len(words) > 2 {
		if in.Protocol, err = ParseProtocol(words[2]); err != nil {
			return bad(2, "protocol %v", err)
		}
	}
	if len(words) > 3 {
		n, err := strconv.ParseUint(words[3], 10, 32)
		if err != nil {
			return bad(3, "expected the number of a user, found %q", words[3])
		}
		in.UserID = uint32(n)
	}
	return in, true, nil
}

// fields splits a line at spaces and says where each word begins.
func fields(s string) (words []string, columns []int) {
	for at := 0; ; {
		rest := strings.TrimLeft(s[at:], " \t\r")
		at = len(s) - len(rest)
		if rest == "" || rest[0] == '#' {
			return words, columns
		}
		end := strings.IndexAny(rest, " \t\r")
		word := rest
		if end >= 0 {
			word = rest[:end]
		}
		if q, err := strconv.QuotedPrefix(rest); err == nil && rest[0] == '"' {
			end = len(q)
			word, _ = strconv.Unquote(q)
		}
		words, columns = append(words, word), append(columns, len([]rune(s[:at]))+1)
		at += cmp.Or(max(end, 0), len(rest))
	}
}
