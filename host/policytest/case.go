// Package policytest says what a policy is expected to do and finds out whether
// it does: cases written beside a policy, their run through the layers, and what
// of the policy they reached. Nothing is connected: a connection is a description.
package policytest

import (
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A Suite is a file of cases. It is not modified after Bind.
type Suite struct {
	File   string
	Policy string // the policy's file, relative to the folder of File; empty: as File is called
	Cases  []Case
	// With are other providers' policies and models that are beside the policy, for
	// cases that do not say.
	With []string

	src        []byte
	references []reference
}

// A Case is one connection, or several of which later ones follow from earlier
// ones.
type Case struct {
	Name  string
	Place Place
	Steps []Step
	// With are the policies and models that are beside the policy.
	With []string
	// Refusal is what is tried in the place of steps; the only one holds the reason.
	Refusal *Refusal
}

// A Step is one connection and what is expected of it.
type Step struct {
	Name  string // empty for the only one
	Place Place
	// Incoming describes who connects where. Local and Remote are as the program
	// sees them.
	Incoming fwps.Incoming
	// Listen: the program binds to Local and listens.
	Listen bool
	// RecordsOf is the step whose redirected connection this program accepted and
	// whose records it sets, -1 for none.
	RecordsOf int
	// Reauthorizes is the step whose connection is asked about again as after a change
	// of the policy (ALE-LAY-12), -1 for none. Incoming and Listen mean nothing then.
	Reauthorizes int
	Want         []Want

	toGiven bool
	toProxy string // of the policy, instead of an address
}

// Alone reports whether the step is a connection that needs no earlier one.
func (s *Step) Alone() bool { return !s.Listen && s.RecordsOf < 0 && s.Reauthorizes < 0 }

// A Want is one thing that is expected.
type Want struct {
	Key   string
	Place Place
	Text  string
	Bytes []byte // of context and record

	form form
	end  int // in the file, in bytes; at is where it begins
	at   int
	more []span // the addresses of a list of sockaddr
}

// A Place is a line and a column of a file, from 1.
type Place struct{ Line, Column int }

// A span is a value in the file.
type span struct{ at, end int }

// None is what is wanted where nothing may be.
const None = "none"

// Actions are the outcomes of a connection.
const (
	Permit   = "permit"
	Block    = "block"
	Redirect = "redirect"
)

// A reference is a name that the policy must know.
type reference struct {
	kind  string
	name  string
	place Place
	with  []string // of its case
}

// form is how the bytes of a context or record are written.
type form uint8

const (
	asText form = iota
	asHex
	asSockaddr
)

func (s *Suite) problem(p Place, near, message string) policyfile.Problem {
	return policyfile.Problem{File: s.File, Line: p.Line, Column: p.Column, Message: message, Nearest: near}
}
