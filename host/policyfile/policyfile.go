// Package policyfile turns a YAML policy into a fwpm.Policy, with the place of
// every mistake.
package policyfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// MaxSize is the largest policy file, in bytes.
const MaxSize = 1 << 20

// A File is a policy as it was written.
type File struct {
	Policy   fwpm.Policy
	Callouts []Callout
	Proxies  []Proxy
	name     string
	places   map[string]ast.Node // of filters, by id
}

// A Callout is where a callout's code is and how it is configured.
type Callout struct {
	ID, Wasm, GoPackage, OnFailure string
	Config                         any
	node                           ast.Node
}

// A Proxy is one of the built-in proxies.
type Proxy struct {
	ID, Kind string
	Listen   netip.AddrPort
}

// A Problem is one mistake.
type Problem struct {
	File         string
	Line, Column int
	Message      string
	Nearest      string
}

func (p Problem) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", p.Nearest)
	}
	return s
}

// Errors are all mistakes of a file, by place.
type Errors []Problem

func (e Errors) Error() string {
	var lines []string
	for _, p := range e {
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

// Load reads a file.
func Load(path string) (*File, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse reads a policy; name is how errors call it. The error is Errors.
func Parse(name string, src []byte) (*File, error) {
	r := &reader{f: &File{name: name, places: map[string]ast.Node{}}}
	if len(src) > MaxSize {
		return nil, Errors{{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("file is %d bytes, the limit is %d", len(src), MaxSize)}}
	}
	doc, err := parser.ParseBytes(src, 0)
	if err != nil {
		p := Problem{File: name, Line: 1, Column: 1, Message: err.Error()}
		var ye yaml.Error
		if errors.As(err, &ye) {
			p.Message = ye.GetMessage()
			if t := ye.GetToken(); t != nil {
				p.Line, p.Column = t.Position.Line, t.Position.Column
			}
		}
		return nil, Errors{p}
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		return nil, Errors{{File: name, Line: 1, Column: 1, Message: "expected one YAML document with version, callouts, filters"}}
	}
	r.root(doc.Docs[0].Body)
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
		return nil, r.errs
	}
	return r.f, nil
}

type reader struct {
	f    *File
	errs Errors
	ids  map[string][]string // declared names by kind
}

func (r *reader) fail(n ast.Node, nearest, format string, args ...any) {
	p := Problem{File: r.f.name, Line: 1, Column: 1, Message: fmt.Sprintf(format, args...), Nearest: nearest}
	if t := n.GetToken(); t != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	r.errs = append(r.errs, p)
}

type fields struct {
	r    *reader
	node ast.Node
	vals map[string]ast.Node
}

// fields reads a mapping with the given keys; those with ! are required.
func (r *reader) fields(n ast.Node, keys ...string) fields {
	out := fields{r, n, map[string]ast.Node{}}
	var pairs []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		pairs = m.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{m}
	default:
		r.fail(n, "", "expected a mapping")
		return out
	}
	var known []string
	for _, k := range keys {
		known = append(known, strings.TrimSuffix(k, "!"))
	}
	for _, p := range pairs {
		key := p.Key.GetToken().Value
		switch {
		case !slices.Contains(known, key):
			r.fail(p.Key, nearest(key, known), "unknown key %q, expected one of %s", key, strings.Join(known, ", "))
		case out.vals[key] != nil:
			r.fail(p.Key, "", "key %q stands twice", key)
		default:
			out.vals[key] = p.Value
		}
	}
	for _, k := range keys {
		if name, required := strings.CutSuffix(k, "!"); required && out.vals[name] == nil {
			r.fail(n, "", "%s is missing", name)
		}
	}
	return out
}

func (r *reader) list(n ast.Node) []ast.Node {
	if n == nil {
		return nil
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n, "", "expected a list")
		return nil
	}
	return s.Values
}

func (f fields) text(key string) string {
	n := f.vals[key]
	if n == nil {
		return ""
	}
	if _, ok := n.(ast.ScalarNode); !ok {
		f.r.fail(n, "", "%s: expected text", key)
		return ""
	}
	return n.GetToken().Value
}

func (f fields) truth(key string) bool {
	switch n := f.vals[key].(type) {
	case nil:
		return false
	case *ast.BoolNode:
		return n.Value
	default:
		f.r.fail(n, "", "%s: expected true or false", key)
		return false
	}
}

func (f fields) number(key string, most uint64) uint64 {
	n := f.vals[key]
	if n == nil {
		return 0
	}
	v, err := strconv.ParseUint(n.GetToken().Value, 0, 64)
	if err != nil || v > most {
		f.r.fail(n, "", "%s: expected a number from 0 to %d", key, most)
	}
	return v
}

// choice reads one of some words; ref says what they are.
func (f fields) choice(key, what string, words []string) string {
	v := f.text(key)
	if v != "" && !slices.Contains(words, v) {
		f.r.fail(f.vals[key], nearest(v, words), "%s %q is not known, expected one of %s", what, v, strings.Join(words, ", "))
		return ""
	}
	return v
}

func (f fields) declare(kind string) string {
	id := f.text("id")
	if slices.Contains(f.r.ids[kind], id) {
		f.r.fail(f.vals["id"], "", "%s %q stands twice", kind, id)
	}
	f.r.ids[kind] = append(f.r.ids[kind], id)
	return id
}

func (r *reader) root(n ast.Node) {
	r.ids = map[string][]string{"sublayer": {string(fwpm.SublayerUniversal)}}
	top := r.fields(n, "version!", "providers", "sublayers", "callouts", "proxies", "filters")
	if v := top.vals["version"]; v != nil && v.GetToken().Value != "1" {
		r.fail(v, "", "version: this calloutd reads version 1")
	}
	p := &r.f.Policy
	for _, n := range r.list(top.vals["providers"]) {
		f := r.fields(n, "id!", "name")
		p.Providers = append(p.Providers, fwpm.Provider{ID: fwpm.ProviderID(f.declare("provider")), Name: f.text("name")})
	}
	for _, n := range r.list(top.vals["sublayers"]) {
		f := r.fields(n, "id!", "name", "weight!", "provider")
		p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(f.declare("sublayer")), Name: f.text("name"),
			Provider: fwpm.ProviderID(f.choice("provider", "provider", r.ids["provider"])), Weight: uint16(f.number("weight", math.MaxUint16))})
	}
	for _, n := range r.list(top.vals["proxies"]) {
		f := r.fields(n, "id!", "kind!", "listen!")
		px := Proxy{ID: f.declare("proxy"), Kind: f.choice("kind", "proxy kind", []string{"inspect", "forward"})}
		var err error
		if px.Listen, err = netip.ParseAddrPort(f.text("listen")); err != nil && f.vals["listen"] != nil {
			r.fail(f.vals["listen"], "", "listen: expected an address and a port such as 127.0.0.1:0")
		}
		r.f.Proxies = append(r.f.Proxies, px)
	}
	for _, n := range r.list(top.vals["callouts"]) {
		r.callout(n)
	}
	for i, n := range r.list(top.vals["filters"]) {
		r.filter(n, fwpm.FilterID(i+1))
	}
}

func (r *reader) callout(n ast.Node) {
	f := r.fields(n, "id!", "name", "provider", "wasm", "go", "config", "on_failure")
	c := Callout{ID: f.declare("callout"), Wasm: f.text("wasm"), GoPackage: f.text("go"), node: n,
		OnFailure: f.choice("on_failure", "failure mode", []string{"block", "continue"})}
	if (c.Wasm == "") == (c.GoPackage == "") {
		r.fail(n, "", "callout %q needs exactly one of wasm and go", c.ID)
	}
	if cfg := f.vals["config"]; cfg != nil {
		if err := yaml.NodeToValue(cfg, &c.Config); err != nil {
			r.fail(cfg, "", "config: %v", err)
		}
	}
	r.f.Callouts = append(r.f.Callouts, c)
	r.f.Policy.Callouts = append(r.f.Policy.Callouts, fwpm.Callout{ID: fwpm.CalloutID(c.ID), Name: f.text("name"),
		Provider: fwpm.ProviderID(f.choice("provider", "provider", r.ids["provider"]))})
}

var actions = map[string]fwp.Action{"permit": fwp.ActionPermit, "block": fwp.ActionBlock, "callout": fwp.ActionCalloutUnknown,
	"callout-terminating": fwp.ActionCalloutTerminating, "callout-inspection": fwp.ActionCalloutInspection}

func (r *reader) filter(n ast.Node, id fwpm.FilterID) {
	f := r.fields(n, "name!", "layer!", "provider", "sublayer", "weight", "action!", "callout", "hard", "permit_if_callout_unregistered", "conditions")
	var layers []string
	for _, l := range fwpm.Layers() {
		layers = append(layers, l.String())
	}
	layer, _ := fwpm.ParseLayer(f.choice("layer", "layer", layers))
	out := fwpm.Filter{ID: id, Name: f.text("name"), Layer: layer, ClearActionRight: f.truth("hard"), PermitIfCalloutUnregistered: f.truth("permit_if_callout_unregistered"),
		Provider: fwpm.ProviderID(f.choice("provider", "provider", r.ids["provider"])),
		Sublayer: fwpm.SublayerID(f.choice("sublayer", "sublayer", r.ids["sublayer"])),
		Action:   actions[f.choice("action", "action", []string{"permit", "block", "callout", "callout-terminating", "callout-inspection"})],
		Callout:  fwpm.CalloutID(f.choice("callout", "callout", r.ids["callout"]))}
	if out.Action != 0 && out.Action.CallsOut() != (f.vals["callout"] != nil) {
		r.fail(n, "", "action %s and key callout do not fit: a callout action names a callout, the others do not", out.Action)
	}
	if w := f.vals["weight"]; w != nil {
		out.Weight = r.weight(f, w)
	}
	for _, c := range r.list(f.vals["conditions"]) {
		r.condition(&out, c)
	}
	r.f.places[fmt.Sprint(id)] = n
	r.f.Policy.Filters = append(r.f.Policy.Filters, out)
}

func (r *reader) weight(f fields, w ast.Node) fwpm.Weight {
	if _, scalar := w.(ast.ScalarNode); scalar {
		return fwpm.Weight{Type: fwp.Uint8, Value: f.number("weight", 15)}
	}
	return fwpm.Weight{Type: fwp.Uint64, Value: r.fields(w, "exact!").number("exact", math.MaxUint64)}
}

func (r *reader) condition(out *fwpm.Filter, n ast.Node) {
	f := r.fields(n, "field!", "match", "value!")
	var names []string
	for _, c := range out.Layer.Fields() {
		names = append(names, c.String())
	}
	match, _ := fwp.ParseMatch(f.choice("match", "match type", fwp.MatchNames()))
	if out.Layer == 0 {
		return // The layer is wrong already; its fields are not known.
	}
	field, ok := fwpm.ParseCondition(f.choice("field", "field at "+out.Layer.String(), names))
	if !ok || f.vals["value"] == nil {
		return
	}
	v, err := value(field, out.Layer, match, f.text("value"))
	if err != nil {
		r.fail(f.vals["value"], "", "value of %s: %v", field, err)
		return
	}
	out.Conditions = append(out.Conditions, fwpm.Condition{Field: field, Match: match, Value: v})
}

func value(c fwpm.ConditionID, l fwpm.LayerID, m fwp.Match, s string) (fwp.Value, error) {
	t := c.DataType(l)
	if m == fwp.MatchRange {
		low, high, ok := strings.Cut(s, "-")
		if !ok {
			return fwp.Value{}, fmt.Errorf("%q: expected a range such as 8000-8999", s)
		}
		a, err1 := value(c, l, fwp.MatchEqual, low)
		b, err2 := value(c, l, fwp.MatchEqual, high)
		return fwp.Between(a, b), cmp.Or(err1, err2)
	}
	switch {
	case c == fwpm.ConditionIPLocalAddress || c == fwpm.ConditionIPRemoteAddress:
		return address(l, s)
	case c == fwpm.ConditionIPProtocol && s == "tcp":
		return fwp.U8(6), nil
	case c == fwpm.ConditionIPProtocol && s == "udp":
		return fwp.U8(17), nil
	case t == fwp.ByteBlob:
		return fwp.Blob(s), nil
	}
	switch t {
	case fwp.SIDType:
		return fwp.Value{Type: t, Text: s}, nil
	case fwp.TokenAccessInformation:
		return security(s)
	}
	bits := map[fwp.DataType]int{fwp.Uint8: 8, fwp.Uint16: 16, fwp.Uint32: 32, fwp.Uint64: 64}[t]
	v, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		return fwp.Value{}, fmt.Errorf("%q: expected a number of %d bits", s, bits)
	}
	return fwp.Value{Type: t, Uint: v}, nil
}

// security is who a token field must name: a numeric user, a SID, or a security
// descriptor in SDDL.
func security(s string) (fwp.Value, error) {
	if uid, err := strconv.ParseUint(s, 10, 32); err == nil {
		return fwp.Allow(fwp.UserSID(uint32(uid))), nil
	}
	if fwp.SID(s).Valid() {
		return fwp.Allow(fwp.SID(s)), nil
	}
	sd, err := fwp.ParseSecurityDescriptor(s)
	return fwp.Value{Type: fwp.SecurityDescriptorType, SD: sd}, err
}

func address(l fwpm.LayerID, s string) (fwp.Value, error) {
	if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() != l.IsV6() {
		return fwp.Mask(p), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() != l.IsV6() {
		return fwp.Addr(a), nil
	}
	return fwp.Value{}, fmt.Errorf("%q: expected an address or prefix of the layer's family", s)
}

// ConfigJSON is the callout's configuration for the guest. "${proxy:NAME}"
// becomes the address of that proxy, "${pid}" the number pid.
func (f *File) ConfigJSON(c Callout, proxies map[string]netip.AddrPort, pid uint32) ([]byte, error) {
	if c.Config == nil {
		return nil, nil
	}
	v, err := substitute(c.Config, proxies, pid)
	if err != nil {
		r := &reader{f: f}
		r.fail(c.node, "", "%v", err)
		return nil, r.errs
	}
	return json.Marshal(v)
}

func substitute(v any, proxies map[string]netip.AddrPort, pid uint32) (any, error) {
	var err error
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			if out[k], err = substitute(x, proxies, pid); err != nil {
				return nil, err
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			if out[i], err = substitute(x, proxies, pid); err != nil {
				return nil, err
			}
		}
		return out, nil
	case string:
		if v == "${pid}" {
			return pid, nil
		}
		if name, ok := strings.CutPrefix(v, "${proxy:"); ok {
			name = strings.TrimSuffix(name, "}")
			a, ok := proxies[name]
			if !ok {
				return nil, fmt.Errorf("config names proxy %q, which the policy does not have", name)
			}
			return a.String(), nil
		}
	}
	return v, nil
}

// Annotate gives the mistakes that the engine found in a policy their place.
func (f *File) Annotate(err error) error {
	if err == nil {
		return nil
	}
	r := &reader{f: f}
	var walk func(error) bool
	walk = func(err error) bool {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				if !walk(e) {
					return false
				}
			}
			return true
		}
		o, ok := err.(*fwpm.ObjectError)
		if !ok || f.places[o.ID] == nil || o.Kind != "filter" {
			return false
		}
		r.fail(f.places[o.ID], "", "%v", o)
		return true
	}
	if !walk(err) {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return r.errs
}

// nearest is the known word most like s, empty if none is.
func nearest(s string, words []string) string {
	best, at := "", max(2, len(s)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(s), strings.ToLower(w)); d < at {
			best, at = w, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost = 1 + min(prev, row[j], row[j-1])
			}
			prev, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
