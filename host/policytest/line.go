package policytest

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// Describe is a connection in a line. One that has nothing more is of the form that
// ParseConnection reads; the rest follows after commas.
func Describe(in *fwps.Incoming) string {
	app := strconv.Quote(in.AppID)
	if len(app) == len(in.AppID)+2 && in.AppID != "" && !strings.ContainsAny(in.AppID, " #") {
		app = in.AppID
	}
	to := in.Remote
	if in.Inbound {
		to = in.Local
	}
	s := fmt.Sprintf("%s %s %s", app, to, protocolWords(uint64(in.Protocol)))
	switch {
	case !in.UserKnown:
		s += ", an unknown user"
	case in.Inbound:
		s += fmt.Sprintf(", user %d", in.UserID)
	case in.UserID != ordinary().Incoming.UserID:
		s += fmt.Sprintf(" %d", in.UserID)
	}
	if in.Inbound {
		s += ", inbound from " + in.Remote.String()
	}
	if name := in.Other[fwpm.ConditionPeerName].Text; name != "" {
		s += ", called " + name
	}
	if luid, known := in.Other[fwpm.ConditionIPLocalInterface]; known {
		s += fmt.Sprintf(", interface %d", luid.Uint)
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
