package policytest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

// A Difference is an expectation that was not met.
type Difference struct {
	Key   string `json:"key"`
	Line  int    `json:"line"`
	Want  string `json:"want"`
	Got   string `json:"got"`
	Hint  string `json:"hint,omitempty"` // where bytes differ
	want  *Want
	bytes []byte // what it is, of context and record
}

// compare finds what of an outcome is not as it was wanted.
func (w *World) compare(s *Step, o *Outcome) []Difference {
	why := s.nearest(o)
	var out []Difference
	for i := range s.Want {
		want := &s.Want[i]
		d := Difference{Key: want.Key, Line: want.Place.Line, Want: want.Text, want: want}
		switch want.Key {
		case "action":
			d.Got = o.Action
		case "sound":
			d.Got = o.sound
		case "destination":
			if d.Got = w.destination(o); o.Destination.IsValid() && w.meant(want, o.Destination) {
				continue
			}
		case "context":
			d.bytes = o.Context
			want.compareBytes(&d)
		case "record":
			d.bytes = o.Record
			want.compareBytes(&d)
		default:
			d.Got = why.get(want)
			if want.meets(d.Got) {
				continue
			}
		}
		if d.Got != d.Want {
			out = append(out, d)
		}
	}
	return out
}

// meant reports whether a destination that is wanted is this one: a proxy is met by a
// dual-stack socket at ::ffff:a.b.c.d too.
func (w *World) meant(want *Want, to netip.AddrPort) bool {
	if id, ok := strings.CutPrefix(want.Text, "proxy:"); ok {
		return w.Proxies[id] == unmapped(to)
	}
	return want.Text == to.String()
}

// unmapped is the address without its v4-mapped form.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// destination is where it goes in the words of cases: the address of a proxy that the
// policy has is the system's choice, and another one when the policy changes.
func (w *World) destination(o *Outcome) string {
	if !o.Destination.IsValid() {
		return None
	}
	for _, id := range slices.Sorted(maps.Keys(w.Proxies)) {
		if w.Proxies[id] == unmapped(o.Destination) {
			return "proxy:" + id
		}
	}
	return o.Destination.String()
}

// nearest is the reason that meets most of what is wanted.
func (s *Step) nearest(o *Outcome) Reason {
	best, most := Reason{}, -1
	for _, r := range o.Reasons {
		if r.Decided && s.excludes(&r) {
			return r
		}
		n := 0
		for i := range s.Want {
			if w := &s.Want[i]; isReason(w.Key) && w.meets(r.get(w)) {
				n++
			}
		}
		if n > most || n == most && best.Filter == 0 && r.Filter != 0 && r.Decided {
			best, most = r, n
		}
	}
	return best
}

// excludes says that a filter decided where none may, or no such one: at the layer that is
// wanted, or at any. Of rule, reason and state it says so of what meets all else that is wanted.
func (s *Step) excludes(r *Reason) bool {
	such, wanted, decided, more := true, true, false, false
	for i := range s.Want {
		w := &s.Want[i]
		got, who := r.get(w), slices.Contains([]string{"filter", "callout", "provider"}, w.Key)
		switch {
		case !isReason(w.Key):
		case w.Key == "layer" && !w.meets(got):
			return false
		case w.Text != None && !w.meets(got):
			such, wanted = such && !who, false
		case w.Text == None && who:
			decided = decided || got != None
		case w.Text == None:
			more = more || got != None
		}
	}
	return such && decided || wanted && more
}

func isReason(key string) bool {
	return slices.Contains([]string{"filter", "callout", "provider", "layer", "rule", "reason", "redirect_state"}, key)
}

// get is a reason's part in the form in which it is wanted.
func (r *Reason) get(w *Want) string {
	got := ""
	switch w.Key {
	case "filter":
		got = r.Name
		if _, err := strconv.ParseUint(w.Text, 10, 64); err == nil && r.Filter != 0 {
			got = strconv.FormatUint(uint64(r.Filter), 10)
		}
	case "callout":
		got = string(r.Callout)
	case "provider":
		got = string(r.Provider)
	case "layer":
		if r.Layer.Valid() {
			got = r.Layer.String()
		}
		if family(w.Text) == w.Text {
			got = family(got)
		}
	case "rule":
		got = r.Rule
	case "reason":
		got = r.Why
	case "redirect_state":
		got = r.State
	}
	if got == "" {
		return None
	}
	return got
}

func (w *Want) meets(got string) bool {
	return got == w.Text || w.Key == "reason" && w.Text != None && got != None && strings.Contains(got, w.Text)
}

func (w *Want) compareBytes(d *Difference) {
	if bytes.Equal(w.Bytes, d.bytes) {
		d.Want, d.Got = "", ""
		return
	}
	d.Want, d.Got = show(w.Bytes, w.form), show(d.bytes, w.form)
	at := 0
	for at < min(len(w.Bytes), len(d.bytes)) && w.Bytes[at] == d.bytes[at] {
		at++
	}
	d.Hint = fmt.Sprintf("%d bytes wanted, %d there, the first that differs is byte %d", len(w.Bytes), len(d.bytes), at)
	if d.Want == d.Got { // The form does not show it.
		d.Want, d.Got = show(w.Bytes, asHex), show(d.bytes, asHex)
	}
}

// show writes bytes in a form, in hexadecimal if they do not have it.
func show(b []byte, f form) string {
	switch {
	case len(b) == 0:
		return None
	case f == asText && strings.IndexFunc(string(b), func(c rune) bool { return c == '\ufffd' || !strconv.IsPrint(c) }) < 0:
		return string(b)
	case f == asSockaddr:
		if list := Addresses(b); list != nil {
			return "[" + strings.Join(list, ", ") + "]"
		}
	}
	return hex.EncodeToString(b)
}

// Addresses reads a row of SOCKADDR_STORAGE, nil if it is none.
func Addresses(b []byte) []string {
	var out []string
	for ; len(b) > 0; b = b[sockaddr.Size:] {
		a, err := sockaddr.Parse(b)
		if err != nil || !bytes.Equal(sockaddr.Append(nil, a), b[:sockaddr.Size]) {
			return nil
		}
		out = append(out, a.String())
	}
	return out
}
