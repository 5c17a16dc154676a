package policytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// A Refusal is a configuration that a callout must not take.
type Refusal struct {
	Callout string
	// Config is all of it, in JSON. If there is none it is the policy's, with Change, a
	// JSON merge patch (RFC 7396).
	Config, Change []byte
}

// Of is the configuration to try with a callout that has the one that is given.
func (r *Refusal) Of(own []byte) ([]byte, error) {
	if r.Config != nil {
		return r.Config, nil
	}
	to, err := decoded(own)
	if err != nil {
		return nil, err
	}
	change, err := decoded(r.Change)
	if err != nil {
		return nil, err
	}
	return json.Marshal(merged(to, change))
}

// decoded keeps numbers as they are written.
func decoded(text []byte) (v any, err error) {
	if len(text) == 0 {
		return nil, nil // A callout without a configuration.
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v)
}

// merged is a value with a merge patch: null takes a key away.
func merged(to, change any) any {
	patch, ok := change.(map[string]any)
	if !ok {
		return change
	}
	out := map[string]any{}
	if was, ok := to.(map[string]any); ok {
		maps.Copy(out, was)
	}
	for key, v := range patch {
		if out[key] = merged(out[key], v); v == nil {
			delete(out, key)
		}
	}
	return out
}

// refusal reads one: a configuration of a callout, and a part of why it is refused.
func (r *reader) refusal(n *yaml.Node) {
	vs := r.mapping(n, "a refusal", []string{"name", "callout", "config", "change", "reason"})
	if vs == nil {
		return
	}
	config := "config"
	if _, ok := get(vs, "change"); ok {
		config = "change"
		if v, both := get(vs, "config"); both {
			r.fail(v.Node, "", "config is all of a configuration, change is what differs from the policy's: expected one of them")
			return
		}
	}
	c := Case{Place: place(n), Refusal: new(Refusal), With: r.with}
	s := Step{Place: c.Place}
	for _, key := range []string{"name", "callout", config, "reason"} {
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
		case "change":
			c.Refusal.Change = r.json(v)
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
	why, err := w.Configure(ctx, c.Refusal)
	res.Took = time.Since(began)
	if err != nil {
		res.Err = err
		return res
	}
	want := &c.Steps[0].Want[0]
	d := Difference{Key: want.Key, Line: want.Place.Line, Want: want.Text, Got: "the callout takes it", want: want}
	if why != "" {
		if strings.Contains(why, want.Text) {
			return res
		}
		d.Got = why
	}
	res.Differences = []StepDifferences{{&c.Steps[0], []Difference{d}}}
	return res
}
