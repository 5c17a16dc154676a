package policytest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// A Refusal is a configuration that a callout must not take.
type Refusal struct {
	Callout string
	Config  []byte // JSON
}

// refusal reads one: a configuration of a callout, and a part of why it is refused.
func (r *reader) refusal(n *yaml.Node) {
	vs := r.mapping(n, "a refusal", []string{"name", "callout", "config", "reason"})
	if vs == nil {
		return
	}
	c := Case{Place: place(n), Refusal: new(Refusal), With: r.with}
	s := Step{Place: c.Place}
	for _, key := range []string{"name", "callout", "config", "reason"} {
		v, ok := get(vs, key)
		if !ok {
			r.fail(n, "", "%s is missing", key)
			return
		}
		switch key {
		case "name":
			c.Name, _ = r.text(v)
		case "callout":
			c.Refusal.Callout, _ = r.text(v)
			r.refer("callout", c.Refusal.Callout, v)
		case "config":
			c.Refusal.Config = r.json(v)
		case "reason":
			r.word(v, &s)
		}
	}
	c.Steps = []Step{s}
	r.Cases = append(r.Cases, c)
}

// json is a value as a callout gets it.
func (r *reader) json(v value) []byte {
	var config any
	err := v.Decode(&config)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(config); err == nil {
			return b
		}
	}
	r.fail(v.Node, "", "%s: it cannot be written as JSON: %v", v.key, err)
	return nil
}

// refuse hands a configuration to a callout, which must say no.
func (w *World) refuse(ctx context.Context, s *Suite, c *Case) Result {
	began := time.Now()
	res := Result{Suite: s, Case: c}
	if w.Configure == nil {
		res.Err = errors.New("callouts cannot be configured here")
		return res
	}
	err := w.Configure(ctx, c.Refusal.Callout, c.Refusal.Config)
	res.Took = time.Since(began)
	want := &c.Steps[0].Want[0]
	d := Difference{Key: want.Key, Line: want.Place.Line, Want: want.Text, Got: "the callout takes it", want: want}
	if err != nil {
		if strings.Contains(err.Error(), want.Text) {
			return res
		}
		d.Got = err.Error()
	}
	res.Differences = []StepDifferences{{&c.Steps[0], []Difference{d}}}
	return res
}
