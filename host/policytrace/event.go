package policytrace

import (
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwps"
)

// An Event is a line of JSON. EVENTS.md of the command lists the kinds, and what
// each key says.
type Event struct {
	Event    string `json:"event"`
	Layer    string `json:"layer,omitempty"`
	Program  string `json:"program,omitempty"`
	PID      uint32 `json:"pid,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Original string `json:"original_destination,omitempty"`
	Proxy    string `json:"proxy,omitempty"` // the proxy of the policy that To is
	Action   string `json:"action,omitempty"`
	Steps    []Step `json:"steps,omitempty"`

	Protocol string   `json:"protocol,omitempty"`
	PeerName string   `json:"peer_name,omitempty"` // what the destination is called, if that is known: the newest name, or the one that a filter blocks
	Inbound  bool     `json:"inbound,omitempty"`
	Flags    []string `json:"flags,omitempty"`

	Filter  uint64 `json:"filter,omitempty"`
	Name    string `json:"filter_name,omitempty"`
	Place   string `json:"filter_place,omitempty"` // file:line
	Callout string `json:"callout,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Why     string `json:"why,omitempty"`
	LeftOut uint64 `json:"left_out,omitempty"` // of a log: like it, and not logged

	// Where Details are asked for.
	Query      string   `json:"query,omitempty"` // a control code
	Status     string   `json:"status,omitempty"`
	Data       *Blob    `json:"data,omitempty"`
	Records    []Record `json:"records,omitempty"`
	Passed     []Passed `json:"passed,omitempty"`
	PassedMore int      `json:"passed_more,omitempty"`
}

// A Step is one filter's part in a classification.
type Step struct {
	Filter   uint64 `json:"filter"`
	Name     string `json:"filter_name"`
	Place    string `json:"filter_place,omitempty"`
	Sublayer string `json:"sublayer"`
	// Where policies of several providers are beside each other, or Details are asked
	// for: whose it is, how heavy it and its sublayer are, and what became of what it
	// said.
	Provider       string  `json:"provider,omitempty"`
	SublayerWeight *uint16 `json:"sublayer_weight,omitempty"`
	Weight         *uint64 `json:"weight,omitempty"`
	Verdict        string  `json:"verdict,omitempty"`

	Callout string `json:"callout,omitempty"`
	State   string `json:"redirect_state,omitempty"` // relative to the callout
	Action  string `json:"action"`                   // or "redirect"
	To      string `json:"to,omitempty"`             // of a redirect
	Hard    bool   `json:"hard,omitempty"`
	Veto    bool   `json:"veto,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Why     string `json:"why,omitempty"`

	// Where Details are asked for.
	Because   []string `json:"because,omitempty"` // the conditions that hold
	Fuel      int      `json:"fuel,omitempty"`    // that the callout took
	FuelLimit int      `json:"fuel_limit,omitempty"`
	Record    *Blob    `json:"record,omitempty"`
	Context   *Blob    `json:"context,omitempty"`
	TargetPID uint32   `json:"target_pid,omitempty"`
}

// Because says where, by what and why it was decided.
func (e Event) Because() string {
	s := ""
	if e.Layer != "" {
		s = " at " + e.Layer + e.by()
	}
	return s + ": " + Clean(e.Why) + Rule(e.Rule)
}

// by says whose decision it was; empty if no filter's.
func (e Event) by() string {
	if e.Filter == 0 {
		return ""
	}
	s := " by " + namedFilter(e.Filter, e.Name, e.Place)
	if e.Callout != "" {
		s += fmt.Sprintf(", callout %q", e.Callout)
	}
	return s
}

// Family is the layer without its family.
func (e Event) Family() string {
	return strings.TrimSuffix(strings.TrimSuffix(e.Layer, "_V4"), "_V6")
}

// protocolName is empty where a layer has none.
func protocolName(protocol uint8) string {
	switch protocol {
	case 0:
		return ""
	case fwps.ProtocolTCP:
		return "tcp"
	case fwps.ProtocolUDP:
		return "udp"
	case fwps.ProtocolICMP:
		return "icmp"
	case fwps.ProtocolICMPv6:
		return "icmpv6"
	}
	return strconv.Itoa(int(protocol))
}

// Level is how loud an event is in a daemon's log.
func (e Event) Level() slog.Level {
	switch e.Event {
	case "classify", "redirect":
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// Attrs are the keys of the event's JSON but its kind, which is the message of a
// slog.Record.
func (e Event) Attrs() []slog.Attr {
	var out []slog.Attr
	v := reflect.ValueOf(e)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if f := v.Field(i); !f.IsZero() && name != "event" {
			out = append(out, slog.Any(name, f.Interface()))
		}
	}
	return out
}
