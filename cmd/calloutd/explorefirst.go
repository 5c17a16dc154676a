package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policytest"
)

// firstOf is the connection that the page begins with: one of the cases beside a policy
// that is redirected, or else blocked, since a permit shows little. It is nil without such
// cases; what is wrong with them is for test to say.
func firstOf(policy string) *explore.Connection {
	ext := filepath.Ext(policy)
	path := strings.TrimSuffix(policy, ext) + "_test" + ext
	src, err := readCases(path)
	if err != nil {
		return nil
	}
	suite, err := policytest.Parse(path, src)
	if err != nil {
		return nil
	}
	for _, action := range []string{"redirect", "block"} {
		for _, c := range suite.Cases {
			for i := range c.Steps {
				s := &c.Steps[i]
				if len(c.With) == 0 && described(s) && slices.ContainsFunc(s.Want, func(w policytest.Want) bool { return w.Key == "action" && w.Text == action }) {
					return inWords(&s.Incoming)
				}
			}
		}
	}
	return nil
}

// described reports whether the page's fields have all that there is of a connection.
func described(s *policytest.Step) bool {
	in := &s.Incoming
	return !s.Listen && s.RecordsOf < 0 && !in.Inbound && in.Remote.IsValid() && in.Other == nil
}

func inWords(in *fwps.Incoming) *explore.Connection {
	c := &explore.Connection{Program: in.AppID, User: "unknown", PID: strconv.FormatUint(uint64(in.ProcessID), 10), To: in.Remote.String(),
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
