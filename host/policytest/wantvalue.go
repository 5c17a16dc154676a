package policytest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// want keeps what is expected as it is written.
func (r *reader) want(v value, s *Step) *Want {
	at, end := r.span(v.Node)
	s.Want = append(s.Want, Want{Key: v.key, Place: place(v.Node), Text: v.Value, at: at, end: end})
	return &s.Want[len(s.Want)-1]
}

func (r *reader) oneOf(v value, s *Step, what string, known ...string) {
	if v.Kind != yaml.ScalarNode || !slices.Contains(known, v.Value) {
		r.bad(v, what, known...)
	}
	r.want(v, s)
}

func (r *reader) action(v value, s *Step) {
	r.oneOf(v, s, "an action", Permit, Block, Redirect)
}

func (r *reader) destination(v value, s *Step) {
	if _, isProxy := r.proxy(v); !isProxy && v.Value != None {
		r.address(v)
	}
	r.want(v, s)
}

// filter is checked by Bind.
func (r *reader) filter(v value, s *Step) { r.named("filter", v, s) }

func (r *reader) callout(v value, s *Step) { r.named("callout", v, s) }

func (r *reader) provider(v value, s *Step) { r.named("provider", v, s) }

func (r *reader) refer(kind, name string, v value) {
	r.references = append(r.references, reference{kind, name, place(v.Node), r.with})
}

func (r *reader) named(kind string, v value, s *Step) {
	if name, ok := r.text(v); ok && name != None {
		r.refer(kind, name, v)
	}
	r.want(v, s)
}

func (r *reader) layer(v value, s *Step) {
	var known []string
	for _, l := range fwpm.Layers() {
		known = append(known, l.String())
		if !l.IsV6() {
			known = append(known, family(l.String()))
		}
	}
	r.oneOf(v, s, "a layer", known...)
}

// family is the name of a layer for both families.
func family(layer string) string {
	return strings.TrimSuffix(strings.TrimSuffix(layer, "_V4"), "_V6")
}

func (r *reader) word(v value, s *Step) {
	r.text(v)
	r.want(v, s)
}

func (r *reader) state(v value, s *Step) {
	known := []string{None}
	for st := redirect.NotRedirected; st <= redirect.PreviouslyRedirectedBySelf; st++ {
		known = append(known, st.String())
	}
	r.oneOf(v, s, "a redirect state", known...)
}

func (r *reader) sound(v value, s *Step) { r.oneOf(v, s, "true", "true") }
