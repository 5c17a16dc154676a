package wsktest

import (
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
)

// sawWord counts the classifications of a layer that are as the keys say.
func sawWord(w *world, s *statement) error {
	if _, ok := fwpm.ParseLayer(s.args[0]); !ok {
		return fmt.Errorf("%q is no layer", s.args[0])
	}
	remote := ""
	if v, ok := s.keys["remote"]; ok {
		a, err := w.addr(v)
		if err != nil {
			return err
		}
		remote = a.String()
	}
	endpoint := 0
	if v, ok := s.keys["endpoint"]; ok {
		var err error
		if endpoint, err = w.number(v); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.decisions {
		if d.layer == s.args[0] && (remote == "" || d.remote == remote) && has(d.app, s.keys["app"]) && has(d.original, s.keys["original"]) &&
			has(d.action, s.keys["action"]) && flagged(d.flags, s.keys["flags"]) && (endpoint == 0 || d.endpoint == endpoint) {
			n++
		}
	}
	want := s.keys["times"]
	if want == "" {
		want = "1"
	}
	if err := w.sameNumber(want, n); err != nil {
		return fmt.Errorf("times: %w; there were:\n%s", err, w.story())
	}
	return nil
}

func (w *world) asked(layer string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.decisions {
		if d.layer == layer {
			n++
		}
	}
	return n
}

func has(got, want string) bool { return want == "" || got == want }

// flagged compares flags; a leading ! is one that must not be there.
func flagged(got, want string) bool {
	for _, f := range strings.Split(want, ",") {
		f, not := strings.CutPrefix(f, "!")
		if f != "" && strings.Contains("|"+got+"|", "|"+f+"|") == not {
			return false
		}
	}
	return true
}

func (w *world) story() string {
	var b strings.Builder
	for _, d := range w.decisions {
		fmt.Fprintf(&b, "  %s %s app=%s original=%s flags=%s %s\n", d.layer, d.remote, d.app, d.original, d.flags, d.action)
	}
	return b.String()
}
