// Package flight keeps connections and what was decided about them in files:
// documented (README.md), compressed, and whole up to the last moment when the
// program that writes one dies.
package flight

import (
	"net/netip"
	"time"

	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Header says what a part of a file is about. Each time a file is opened for
// writing begins a part.
type Header struct {
	Policy  string                    // the policy's file, for people
	Process uint32                    // the process that decided: ${pid} of the policy
	Proxies map[string]netip.AddrPort // where the policy's proxies listened
	Source  string                    // what was imported; empty: it was decided here
	Masked  Mask                      // what was left out
}

// An Entry is one connection, or the first datagram of a flow.
type Entry struct {
	Time          time.Time
	Protocol      uint8
	Inbound       bool
	Program       string
	Process       uint32
	User          uint32
	UserKnown     bool
	Groups        []uint32
	Local, Remote netip.AddrPort // as the program sees them; Local may have port zero
	Host          string         // the name that was asked for, if it is known
	// Records are what was set on the socket, oldest first: their Callout says
	// whose they are, serials and handles mean nothing any more.
	Records redirect.Records
	// Outcome is what was decided, nil if that is not known.
	Outcome *Outcome
	// Answers are what callouts were told that is not the same each time.
	Answers []journal.Answer
}

// An Outcome is a decision.
type Outcome struct {
	Action      string // permit, block or redirect
	Destination string // an address or proxy:ID; empty if it goes nowhere
	Layer       string
	Filter      uint64
	FilterName  string
	Callout     string
	Rule, Why   string
	// Context and Record are those of a redirect.
	Context, Record []byte
}

// A Mask says what is left out of a file.
type Mask uint8

// What can be left out.
const (
	MaskBlobs    Mask = 1 << iota // contexts and records
	MaskAnswers                   // what callouts were told: keys, random bytes, names
	MaskPrograms                  // folders of programs
	MaskUsers                     // users and groups
	MaskHosts                     // names that were asked for
)

// Masks are the names of what can be left out, by bit.
var Masks = []string{"blobs", "answers", "programs", "users", "hosts"}

// Has reports whether all of m is left out.
func (m Mask) Has(o Mask) bool { return m&o == o }
