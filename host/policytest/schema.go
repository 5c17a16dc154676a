package policytest

import (
	"encoding/json"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

type m = map[string]any

var (
	schemaText    = m{"type": "string", "minLength": 1}
	schemaAddress = m{"type": "string", "pattern": `^(.+:[0-9]+|proxy:.+)$`}
	schemaNumber  = m{"type": "integer", "minimum": 0, "maximum": 1<<32 - 1}
	schemaWith    = m{"type": "array", "items": schemaText, "description": "Policies and models of other providers that are beside the policy."}
	// An interface's LUID has 64 bits.
	schemaInterface = m{"type": "integer", "minimum": 0}
	schemaBlob      = m{"oneOf": []m{{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": m{
		"text": m{"type": "string"}, "hex": m{"type": "string", "pattern": "^[0-9A-Fa-f ]*$"}, "sockaddr": m{"type": "array", "items": schemaAddress}}}}}
)

// schemas are what the values of keys look like.
func schemas() m {
	layers, states := []string{}, []string{None}
	for _, l := range fwpm.Layers() {
		layers = append(layers, l.String())
		if !l.IsV6() {
			layers = append(layers, family(l.String()))
		}
	}
	for st := redirect.NotRedirected; st <= redirect.PreviouslyRedirectedBySelf; st++ {
		states = append(states, st.String())
	}
	return m{
		"program": schemaText, "user": m{"type": []string{"integer", "string"}}, "groups": m{"type": "array", "items": schemaNumber}, "pid": schemaNumber,
		"to": schemaAddress, "from": schemaAddress, "interface": schemaInterface, "peer_name": schemaText, "protocol": m{"type": []string{"integer", "string"}},
		"inbound": m{"type": "boolean"}, "listen": m{"type": "boolean"}, "records_of": schemaText, "reauthorizes": schemaText,

		"action": m{"enum": []string{Permit, Block, Redirect}}, "destination": m{"type": "string", "pattern": `^(.+:[0-9]+|proxy:.+|none)$`},
		"context": schemaBlob, "record": schemaBlob, "filter": m{"type": []string{"integer", "string"}}, "callout": schemaText, "provider": schemaText,
		"layer": m{"enum": layers}, "rule": schemaText, "reason": schemaText, "redirect_state": m{"enum": states}, "sound": m{"enum": []bool{true}},
	}
}

// Schema is the JSON Schema of files of cases. It is made of the tables that the
// reader takes, so that it knows every key.
func Schema() []byte {
	all := schemas()
	with := func(keys []key, more m) m {
		props := m{}
		for _, k := range keys {
			s := m{"description": k.what}
			for name, v := range all[k.name].(m) {
				s[name] = v
			}
			props[k.name] = s
		}
		for name, v := range more {
			props[name] = v
		}
		return m{"type": "object", "additionalProperties": false, "properties": props}
	}
	expect := with(expectationKeys, nil)
	expect["anyOf"] = []m{{"required": []string{"action"}}, {"required": []string{"sound"}}}
	name := m{"type": "string", "minLength": 1, "description": "What reports call it."}
	step := with(connectionKeys, m{"name": name, "expect": expect})
	step["required"] = []string{"expect"}
	one := with(connectionKeys, m{"name": name, "with": schemaWith, "expect": expect, "steps": m{"type": "array", "minItems": 1, "items": step,
		"description": "Several connections, of which later ones can have the records of earlier ones."}})
	one["required"] = []string{"name"}
	one["oneOf"] = []m{{"required": []string{"expect"}}, {"required": []string{"steps"}}}
	columns := append(names(connectionKeys), names(expectationKeys)...)
	table := m{"type": "object", "additionalProperties": false, "required": []string{"name", "columns", "rows"}, "properties": m{
		"name": name, "with": schemaWith, "defaults": with(connectionKeys, nil), "columns": m{"type": "array", "uniqueItems": true, "items": m{"enum": columns}},
		"rows": m{"type": "array", "items": m{"type": "array"}}}}
	refusal := m{"type": "object", "additionalProperties": false, "required": []string{"name", "callout", "reason"},
		"oneOf": []m{{"required": []string{"config"}}, {"required": []string{"change"}}}, "properties": m{
			"name": name, "callout": schemaText, "config": m{}, "change": m{"description": "What differs from the policy's configuration: a JSON merge patch."}, "reason": schemaText}}
	root := m{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "calloutd cases", "type": "object", "additionalProperties": false,
		"required": []string{"version"}, "properties": m{
			"version": m{"const": 1}, "policy": m{"type": "string", "description": "The policy's file, relative to this one."}, "with": schemaWith, "defaults": with(connectionKeys, nil),
			"cases": m{"type": "array", "items": one}, "tables": m{"type": "array", "items": table}, "refusals": m{"type": "array", "items": refusal}}}
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // It is made of texts and numbers.
	}
	return append(b, '\n')
}
