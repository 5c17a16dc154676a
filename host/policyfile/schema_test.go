package policyfile

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

var update = flag.Bool("update", false, "write schema.json")

type m = map[string]any

// schemaOf is the schema of a form.
func schemaOf(f form) m {
	switch f := f.(type) {
	case text:
		return m{"type": "string", "minLength": 1}
	case identifier, reference:
		return m{"type": "string", "pattern": identifiers}
	case choice:
		return m{"enum": f.words()}
	case truth:
		return m{"type": "boolean"}
	case number:
		return m{"type": "integer", "minimum": f.least, "maximum": f.most}
	case listen:
		return m{"type": "string", "pattern": `^.+:[0-9]+$`}
	case prefix:
		return m{"type": "string", "pattern": `^[0-9A-Fa-f:.]+(/[0-9]+)?$`}
	case list:
		return m{"type": "array", "items": schemaOfMapping(f.of)}
	case several:
		return m{"type": "array", "items": schemaOf(f.of), "uniqueItems": true}
	case inner:
		return schemaOfMapping(f.of)
	case either:
		return m{"oneOf": []m{schemaOf(f.scalar), schemaOfMapping(f.or)}}
	case values, anything:
		return m{}
	}
	panic(fmt.Sprintf("form %T has no schema", f))
}

func schemaOfMapping(o *mapping) m {
	props, required := m{}, []string{}
	for _, k := range o.keys {
		s := schemaOf(k.form)
		s["description"] = k.doc
		props[k.name] = s
		if k.required {
			required = append(required, k.name)
		}
	}
	s := m{"type": "object", "description": o.doc, "additionalProperties": false, "properties": props, "required": required}
	switch o {
	case &calloutKeys:
		s["oneOf"] = []m{{"required": []string{"wasm"}}, {"required": []string{"go"}}, {"required": []string{"model"}}}
	case &setKeys:
		s["oneOf"] = []m{{"required": []string{"prefixes"}}, {"required": []string{"file"}}}
	case &tableKeys:
		s["oneOf"] = []m{{"required": []string{"rows"}}, {"required": []string{"file"}}}
	case &credentialKeys:
		s["oneOf"] = []m{{"required": []string{"file"}}, {"required": []string{"env"}}}
	case &proxyKeys:
		s["allOf"] = schemaOfProxies()
	case &filterKeys:
		s["allOf"] = append(append(schemaOfLayers(), schemaOfActions()...), schemaOfBlocks())
	case &conditionKeys:
		s["allOf"] = schemaOfFields()
	}
	return s
}

// schemaOfBlocks says where a block stops nothing.
func schemaOfBlocks() m {
	var names []string
	for _, name := range layerNames() {
		if blockless[parseLayer(name)[0].ForFamily(false)] != "" {
			names = append(names, name)
		}
	}
	return when("layer", names, m{"properties": m{"action": m{"not": m{"const": "block"}}}})
}

func when(key string, values []string, then m) m {
	return m{"if": m{"properties": m{key: m{"enum": values}}, "required": []string{key}}, "then": then}
}

func schemaOfActions() []m {
	var ask, decide []string
	for _, a := range actions {
		if a.action.CallsOut() {
			ask = append(ask, a.name)
		} else {
			decide = append(decide, a.name)
		}
	}
	return []m{
		when("action", ask, m{"required": []string{"callout"}}),
		when("action", decide, m{"properties": m{"callout": false, "permit_if_callout_unregistered": false}}),
	}
}

func schemaOfProxies() []m {
	var own, noAddress []string
	for _, k := range builtinKinds {
		if own = append(own, string(k)); k != ProxyDNS {
			noAddress = append(noAddress, string(k))
		}
	}
	return []m{
		when("kind", own, m{"properties": m{"credentials": false}}),
		when("kind", noAddress, m{"properties": m{"address": false}}),
		when("kind", proxyKinds()[len(own):], m{"required": []string{"address"}, "properties": m{"listen": false}}),
		when("kind", []string{string(ProxyProtocol)}, m{"properties": m{"credentials": false}}),
	}
}

// schemaOfLayers says which fields the layers have.
func schemaOfLayers() []m {
	var all []m
	var done []string
	for _, name := range layerNames() {
		if slices.Contains(done, name) {
			continue
		}
		fields := fieldsOf(parseLayer(name)[0])
		var same []string
		for _, other := range layerNames() {
			if slices.Equal(fields, fieldsOf(parseLayer(other)[0])) {
				same = append(same, other)
			}
		}
		done = append(done, same...)
		all = append(all, when("layer", same, m{"properties": m{"conditions": m{"items": m{"properties": m{"field": m{"enum": fields}}}}}}))
	}
	return all
}

// schemaOfFields says which match types and values the fields take. Fields that
// take the same stand together.
func schemaOfFields() []m {
	var all []m
	groups := map[string]m{}
	for _, name := range fieldNames() {
		c, _ := fwpm.ParseCondition(name)
		l := someLayer(c)
		t := typeOf(c, l)
		if c == fwpm.ConditionFlags { // Every layer's.
			t.names = flagNames(^fwp.ConditionFlags(0))
			t.what = "flags of the layer or numbers"
		}
		then := m{"properties": m{"match": m{"enum": matches(c, l)}, "value": schemaOfValue(t)}}
		if t.bits {
			then["required"] = []string{"match"}
		}
		key := fmt.Sprint(then)
		g := groups[key]
		if g == nil {
			g = m{}
			groups[key] = g
			all = append(all, g)
		}
		var fields []string
		if g["if"] != nil {
			fields = g["if"].(m)["properties"].(m)["field"].(m)["enum"].([]string)
		}
		maps.Copy(g, when("field", append(fields, name), then))
	}
	return all
}

func schemaOfValue(t valueType) m {
	var forms []m
	switch {
	case t.data.Unsigned() && !t.address: // 0x10, 1-9
		forms = append(forms, m{"type": "integer", "minimum": 0, "maximum": t.data.Max()}, m{"type": "string", "pattern": "^[0-9]"}, m{"enum": append(t.words(), Empty)})
	case t.data == fwp.SecurityDescriptorType:
		forms = append(forms, m{"type": "integer", "minimum": 0}, m{"type": "string", "minLength": 1})
	default:
		forms = append(forms, m{"type": "string", "minLength": 1})
	}
	return m{"description": t.what, "anyOf": append(forms, m{"type": "array", "minItems": 1, "items": m{"anyOf": forms}})}
}

func someLayer(c fwpm.ConditionID) fwpm.LayerID {
	for _, l := range fwpm.Layers() {
		if slices.Contains(l.Fields(), c) {
			return l
		}
	}
	panic("no layer has " + c.String())
}

func TestSchemaIsWhatTheTablesSay(t *testing.T) {
	s := schemaOfMapping(&fileKeys)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "calloutd policy"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	require.NoError(t, e.Encode(s))
	if *update {
		require.NoError(t, os.WriteFile("schema.json", b.Bytes(), 0o644))
		return
	}
	require.Equal(t, b.String(), string(Schema()), "run go generate")
}

func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", doc))
	s, err := c.Compile("schema.json")
	require.NoError(t, err)
	return s
}

// asJSON is a YAML text as the schema's validator takes it: with keys as text
// and exact numbers.
func asJSON(t testing.TB, src []byte) any {
	t.Helper()
	var doc yaml.Node
	require.NoError(t, yaml.Load(src, &doc))
	r := &reader{File: &File{}}
	b, err := json.Marshal(r.config(doc.Content[0]))
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	require.NoError(t, err)
	return v
}

func TestExamplesFitTheSchema(t *testing.T) {
	s := compiledSchema(t)
	files, err := filepath.Glob("../../examples/*/policy.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, s.Validate(asJSON(t, src)))
			_, err = Load(file)
			require.NoError(t, err)
		})
	}
}

// The schema and the reader agree on every layer, field and match type.
func TestSchemaAndReaderAgree(t *testing.T) {
	s := compiledSchema(t)
	accepted := 0
	agree := func(layer, action, field, match string) {
		c := m{"field": field, "value": "1"}
		if id, ok := fwpm.ParseCondition(field); ok {
			typ := typeOf(id, parseLayer(layer)[0])
			c["value"] = typ.sample
			if typ.host && strings.HasSuffix(match, "prefix") {
				c["value"] = "." + typ.sample
			}
			if match == "range" {
				c["value"] = typ.sample + "-" + typ.last
			}
		}
		if match != "" {
			c["match"] = match
		}
		src, err := json.Marshal(m{"version": 1, "filters": []m{{"name": "f", "layer": layer, "action": action, "conditions": []m{c}}}})
		require.NoError(t, err)
		bySchema := s.Validate(asJSON(t, src))
		_, byReader := Parse("policy.yaml", src)
		require.Equal(t, bySchema == nil, byReader == nil, "%s\nschema: %v\nreader: %v", src, bySchema, byReader)
		if byReader == nil {
			accepted++
		}
	}
	for _, layer := range layerNames() {
		for _, field := range append(fieldNames(), "NO_FIELD") {
			agree(layer, "permit", field, "equal")
		}
		agree(layer, "block", "ALE_APP_ID", "equal")
	}
	require.Greater(t, accepted, 300)
	for _, field := range fieldNames() {
		id, _ := fwpm.ParseCondition(field)
		for _, match := range append(fwp.MatchNames(), "", "nearly") {
			agree(someLayer(id).String(), "permit", field, match)
		}
	}
}

// The schema and the reader agree on what callouts may use and cost.
func TestSchemaAndReaderAgreeOnCallouts(t *testing.T) {
	s := compiledSchema(t)
	for text, right := range map[string]bool{
		`callouts: [{id: a, wasm: x, capabilities: [log, random, wall, kv, metric]}]`: true,
		`callouts: [{id: a, wasm: x, capabilities: [sets]}]`:                          false,
		`callouts: [{id: a, wasm: x, capabilities: [log, log]}]`:                      false,
		`callouts: [{id: a, wasm: x, capabilities: log}]`:                             false,
		`callouts: [{id: a, wasm: x, limits: {memory_mib: 1024, slots: 1}}]`:          true,
		`callouts: [{id: a, wasm: x, limits: {memory_mib: 1025}}]`:                    false,
		`callouts: [{id: a, wasm: x, limits: {fuel_slices: 0}}]`:                      false,
		`callouts: [{id: a, wasm: x, limits: {memory: 1}}]`:                           false,
		`callouts: [{id: a, wasm: x, limits: [1]}]`:                                   false,
		`callouts: [{id: a, wasm: x, max_failures: 0}]`:                               true,
		`callouts: [{id: a, wasm: x, max_failures: never}]`:                           false,
		`callouts: [{id: a, wasm: x, on_failure: continue}]`:                          true,
		`callouts: [{id: a, wasm: x, on_failure: last-good}]`:                         false,
		`callouts: [{id: a, wasm: x, applicable_layer: ALE_AUTH_CONNECT_V6}]`:         true,
		`callouts: [{id: a, wasm: x, applicable_layer: ALE_AUTH_CONNECT}]`:            false,
		`sets: [{id: a, prefixes: [10.0.0.0/8, "::1", "2001:db8::/32"]}]`:             true,
		`sets: [{id: a, prefixes: [ten]}]`:                                            false,
		`sets: [{id: a, prefixes: [10]}]`:                                             false,
		`sets: [{id: a}]`:                                                             false,
		`sets: [{id: a, prefixes: [], file: x}]`:                                      false,
		`tables: [{id: a, rows: [{prefix: 10.0.0.0/8, value: 2147483647}]}]`:          true,
		`tables: [{id: a, rows: [{prefix: 10.0.0.0/8, value: 2147483648}]}]`:          false,
		`tables: [{id: a, rows: [{prefix: 10.0.0.0/8}]}]`:                             false,
		`tables: [{id: a}]`: false,
		`provider_contexts: [{id: a, data: x}, {id: b, data: {base64: AAEC}}]`: true,
		`provider_contexts: [{id: a, data: {hex: 00}}]`:                        false,
	} {
		src := []byte("version: 1\n" + text)
		_, err := Parse("policy.yaml", src)
		require.Equal(t, right, err == nil, "%s\n%v", text, err)
		err = s.Validate(asJSON(t, src))
		require.Equal(t, right, err == nil, "%s\n%v", text, err)
	}
}

// A field of a type that the reader does not know must fail here.
func TestEveryFieldHasAType(t *testing.T) {
	for _, l := range fwpm.Layers() {
		for _, c := range l.Fields() {
			typ := typeOf(c, l)
			o, err := typ.operand(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: typ.sample}, "equal")
			require.Nil(t, err, "%s at %s", c, l)
			v, _ := condition{field: c, operand: o}.value(l, false)
			check, bad := arbitrate.NewChecker(&fwpm.Policy{})
			require.NoError(t, bad)
			require.NoError(t, check.Filter(&fwpm.Filter{ID: 1, Name: "f", Layer: l, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{{Field: c, Value: v}}}), "%s at %s", c, l)
		}
	}
}
