package policytrace

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/redirect"
)

// Details are what a Reader tells of one described connection besides who was asked:
// the filters that were not and why, weights, what callouts took, what records hold.
// They take time and show what is secret, so no real connection has them. A value is
// for one connection.
type Details struct {
	journal journal.Journal
	told    int // of the journal's costs
}

// Watch returns the context for the connection, in which callouts tell what they
// take. Without Details it is the same.
func (d *Details) Watch(ctx context.Context) context.Context {
	if d == nil {
		return ctx
	}
	d.journal.Measures = true
	return journal.With(ctx, &d.journal)
}

// mostPassed is how many filters are told of that a layer passed by.
const mostPassed = 200

// A Passed is a filter of a layer that was not asked.
type Passed struct {
	Filter         uint64   `json:"filter"`
	Name           string   `json:"filter_name"`
	Place          string   `json:"filter_place,omitempty"`
	Sublayer       string   `json:"sublayer"`
	Provider       string   `json:"provider"`
	SublayerWeight uint16   `json:"sublayer_weight"`
	Weight         uint64   `json:"weight"`
	Callout        string   `json:"callout,omitempty"`
	Action         string   `json:"action"`
	Unless         []string `json:"unless,omitempty"` // what would have to be so, and what is
	By             uint64   `json:"by,omitempty"`     // the filter that decided the sublayer before
}

// A Blob is a record, a context or sealed records, as it can be read.
type Blob struct {
	Size     int      `json:"size"`
	Hex      string   `json:"hex"`
	Text     string   `json:"text,omitempty"`
	Sockaddr []string `json:"sockaddr,omitempty"` // a row of SOCKADDR_STORAGE
}

// newBlob is nil for no bytes.
func newBlob(b []byte) *Blob {
	if len(b) == 0 {
		return nil
	}
	out := &Blob{Size: len(b), Hex: hex.EncodeToString(b), Sockaddr: policytest.Addresses(b)}
	if text := string(b); Clean(text) == text && strings.ToValidUTF8(text, "") == text {
		out.Text = text
	}
	return out
}

func (b *Blob) String() string {
	switch {
	case b == nil:
		return "none"
	case b.Text != "":
		return strconv.Quote(b.Text)
	case len(b.Sockaddr) > 0:
		return "SOCKADDR_STORAGE " + strings.Join(b.Sockaddr, ", ")
	}
	return b.Hex
}

// A Record is one redirect that a proxy learns of, the newest last.
type Record struct {
	Callout   string `json:"callout,omitempty"`
	Filter    uint64 `json:"filter"`
	Name      string `json:"filter_name,omitempty"`
	Program   string `json:"program,omitempty"`
	PID       uint32 `json:"pid,omitempty"`
	Original  string `json:"original_destination"`
	To        string `json:"to"`
	TargetPID uint32 `json:"target_pid,omitempty"`
	Record    *Blob  `json:"record,omitempty"`
	Context   *Blob  `json:"context,omitempty"`
}

func (r Reader) records(rs redirect.Records) (out []Record) {
	for _, h := range rs {
		out = append(out, Record{Callout: h.Callout, Filter: h.FilterID, Name: r.Policy.FilterName(fwpm.FilterID(h.FilterID)), Program: h.AppID, PID: h.ProcessID,
			Original: h.Original.String(), To: addr(h.Target), TargetPID: h.TargetPID, Record: newBlob(h.Record), Context: newBlob(h.Context)})
	}
	return out
}

// passedBy adds the filters of the layer that were not asked, and says them.
func (r Reader) passedBy(e *Event, in *fwps.Incoming, d *fwps.Decision) (lines []string) {
	if r.Details == nil {
		return nil
	}
	file := r.Policy.File
	ps, more := policytest.PassedBy(file, in, d.Steps, mostPassed)
	for _, p := range ps {
		f := p.Filter
		x := Passed{Filter: uint64(f.ID), Name: f.Name, Place: file.Place(f.ID), Sublayer: cmp.Or(string(f.Sublayer), string(fwpm.SublayerUniversal)), Provider: policytest.Provider(f.Provider),
			SublayerWeight: p.SublayerWeight, Weight: p.Weight, Callout: string(f.Callout), Action: f.Action.String(), Unless: p.Unmet, By: uint64(p.By)}
		e.Passed = append(e.Passed, x)
		lines = append(lines, "    "+x.String())
	}
	if e.PassedMore = more; more > 0 {
		lines = append(lines, fmt.Sprintf("    and %d more filters were not asked", more))
	}
	return lines
}

func (p *Passed) String() string {
	s := namedFilter(p.Filter, p.Name, p.Place) + standing(p.Provider, &p.Weight, p.Sublayer, &p.SublayerWeight) + " is not asked: "
	if len(p.Unless) > 0 {
		return s + "it wants " + strings.Join(p.Unless, ", and ")
	}
	return s + fmt.Sprintf("filter %d decided the sublayer before it (ARB-01)", p.By)
}

// detail adds to a step what is told besides.
func (r Reader) detail(s *Step, in *fwps.Incoming, d *fwps.Decision) {
	if r.Details == nil {
		return
	}
	file := r.Policy.File
	for i := range file.Policy.Filters {
		if f := &file.Policy.Filters[i]; uint64(f.ID) == s.Filter {
			s.Because = policytest.Holding(f, in)
		}
	}
	if cost := r.Details.next(s.Callout); cost != nil {
		s.Fuel, s.FuelLimit = cost.Fuel, cost.Of
	}
	if v := version(d.Connect, fwpm.FilterID(s.Filter)); v != nil {
		s.Record, s.Context, s.TargetPID = newBlob(v.Record), newBlob(v.LocalRedirectContext), v.LocalRedirectTargetPID
	}
}

// next is what the next answer of a callout cost, nil if that is not known.
func (d *Details) next(callout string) *journal.Cost {
	for i := d.told; i < len(d.journal.Costs); i++ {
		if c := &d.journal.Costs[i]; c.Callout == callout {
			d.told = i + 1
			return c
		}
	}
	return nil
}

// of are the lines of a step's details.
func (d *Details) of(s *Step) (lines []string) {
	if d == nil {
		return nil
	}
	add := func(format string, args ...any) { lines = append(lines, "        "+fmt.Sprintf(format, args...)) }
	if len(s.Because) > 0 {
		add("because %s", strings.Join(s.Because, ", "))
	}
	if s.FuelLimit > 0 {
		add("the callout took %d of %d units of fuel", s.Fuel, s.FuelLimit)
	}
	if s.Action == "redirect" {
		add("record %s, context %s", s.Record, s.Context)
	}
	return lines
}
