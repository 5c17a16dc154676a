package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// casesBeside is the file of a policy's cases.
func casesBeside(policy string) string {
	ext := filepath.Ext(policy)
	return strings.TrimSuffix(policy, ext) + "_test" + ext
}

// exploredCases are the connections of the cases beside a policy that the page can show. Without
// such cases there are none; what is wrong with them is for test to say.
func exploredCases(policy string) (out []explore.Case) {
	path := casesBeside(policy)
	src, err := readCases(path)
	if err != nil {
		return nil
	}
	suite, err := policytest.Parse(path, src)
	if err != nil {
		return nil
	}
	for _, c := range suite.Cases {
		for i := range c.Steps {
			s := &c.Steps[i]
			if len(c.With) > 0 || !described(s) {
				continue
			}
			name := c.Name
			if s.Name != "" {
				name += ": " + s.Name
			}
			out = append(out, explore.Case{Name: name, Action: expected(s), Connection: inWords(&s.Incoming)})
		}
	}
	return out
}

// described reports whether the page's fields have all that there is of a connection.
func described(s *policytest.Step) bool {
	in := &s.Incoming
	return s.Alone() && in.Remote.IsValid() && (!in.Inbound || in.Local.IsValid()) && in.Other == nil
}

// expected is the action that a step expects, empty if it does not say.
func expected(s *policytest.Step) string {
	for _, w := range s.Want {
		if w.Key == "action" {
			return w.Text
		}
	}
	return ""
}

// inWords is the connection of a case as it is written there: to and from are turned round
// where one comes in only once it is decided.
func inWords(in *fwps.Incoming) explore.Connection {
	c := explore.Connection{Program: in.AppID, User: "unknown", PID: strconv.FormatUint(uint64(in.ProcessID), 10), To: in.Remote.String(), Inbound: in.Inbound,
		Groups: strings.Join(strings.Fields(strings.Trim(fmt.Sprint(in.Groups), "[]")), ", ")}
	if in.UserKnown {
		c.User = strconv.FormatUint(uint64(in.UserID), 10)
	}
	if in.Local.IsValid() {
		c.From = in.Local.String()
	}
	switch in.Protocol {
	case fwps.ProtocolTCP:
		c.Protocol = "tcp"
	case fwps.ProtocolUDP:
		c.Protocol = "udp"
	default:
		c.Protocol = strconv.Itoa(int(in.Protocol))
	}
	return c
}
