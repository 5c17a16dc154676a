package flight

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/redirect"
)

// ParseMask reads names of what is to be left out.
func ParseMask(names []string) (m Mask, err error) {
	for _, name := range names {
		bit := slices.Index(Masks, name)
		if bit < 0 {
			return 0, fmt.Errorf("%q: expected some of %s", name, strings.Join(Masks, ", "))
		}
		m |= 1 << bit
	}
	return m, nil
}

// hide returns the entry without what is left out. The entry stays as it is.
func (m Mask) hide(e *Entry) *Entry {
	if m == 0 {
		return e
	}
	out := *e
	if m.Has(MaskPrograms) {
		out.Program = base(out.Program)
	}
	if m.Has(MaskUsers) {
		out.User, out.UserKnown, out.Groups = 0, false, nil
	}
	if m.Has(MaskHosts) {
		out.Host = ""
	}
	if m.Has(MaskAnswers) {
		out.Answers = nil
	}
	out.Records = m.hideHops(e.Records)
	if m.Has(MaskBlobs) && e.Outcome != nil {
		o := *e.Outcome
		o.Context, o.Record = nil, nil
		out.Outcome = &o
	}
	return &out
}

func (m Mask) hideHops(rs redirect.Records) redirect.Records {
	if !m.Has(MaskBlobs) && !m.Has(MaskPrograms) {
		return rs
	}
	var out redirect.Records
	for _, h := range rs {
		c := *h
		if m.Has(MaskBlobs) {
			c.Record, c.Context = nil, nil
		}
		if m.Has(MaskPrograms) {
			c.AppID = base(c.AppID)
		}
		out = append(out, &c)
	}
	return out
}

func base(program string) string {
	if program == "" {
		return ""
	}
	return path.Base(strings.ReplaceAll(program, `\`, "/"))
}
