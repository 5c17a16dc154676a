package wsktest

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// sameStatus compares a status with one of several that are allowed, a|b.
func (w *world) sameStatus(want string, got ntstatus.Status) error {
	for _, name := range strings.Split(want, "|") {
		if _, ok := ntstatus.Parse(name); !ok {
			return fmt.Errorf("%q is no status", name)
		}
		if got.Error() == name {
			return nil
		}
	}
	return fmt.Errorf("status %v, want %s", got, want)
}

func (w *world) compare(s *statement, p *pending) error {
	var results map[string]any
	if p.inv.results != nil {
		results = p.inv.results()
	}
	for k, v := range s.wants {
		var err error
		switch k {
		case "info":
			err = w.sameNumber(v, p.status().Information)
		case "returned":
			err = w.sameNumber(v, p.returned)
		case "inline":
			if !w.debug.AlwaysPend && !w.debug.RandomOrder { // The other modes are there to change it.
				err = w.sameStatus(v, p.inline)
			}
		case "save":
			w.blobs[strings.TrimPrefix(v, "$")] = bytes.Clone(p.out[:p.status().Information])
		case "save-records", "save-context": // by after
		case "untouched":
			err = w.untouched(v, p)
		default:
			err = w.same(v, results[k])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// untouched checks that the output buffer is as it was, from an offset on.
func (w *world) untouched(from string, p *pending) error {
	n, err := w.number(from)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(p.out[n:], p.fill[n:]):
		return fmt.Errorf("the buffer was written to from %d on", n)
	}
	return nil
}

// sameNumber compares; >N is anything more, and a $name without a value gets it.
func (w *world) sameNumber(want string, got int) error {
	if name, ok := strings.CutPrefix(want, "$"); ok && !strings.ContainsAny(name, "+-") {
		if _, known := w.numbers[name]; !known {
			w.numbers[name] = got
			return nil
		}
	}
	more := strings.HasPrefix(want, ">")
	n, err := w.number(strings.TrimPrefix(want, ">"))
	switch {
	case err != nil:
		return err
	case more && got <= n, !more && got != n:
		return fmt.Errorf("%d, want %s", got, want)
	}
	return nil
}

func (w *world) same(want string, got any) error {
	switch got := got.(type) {
	case nil:
		return fmt.Errorf("there is no such result")
	case int:
		return w.sameNumber(want, got)
	case bool:
		if want != strconv.FormatBool(got) {
			return fmt.Errorf("%v, want %s", got, want)
		}
	case string:
		if want != got {
			return fmt.Errorf("%q, want %q", got, want)
		}
	case netip.AddrPort:
		a, err := w.addr(want)
		if err != nil || a != got {
			return fmt.Errorf("%v, want %v (%v)", got, a, err)
		}
	case []byte:
		b, err := w.blob(want)
		if err != nil || !bytes.Equal(b, got) {
			return fmt.Errorf("%q, want %q (%v)", got, b, err)
		}
	}
	return nil
}
