package main

import (
	"context"
	"fmt"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// A subject makes the decision in some way. What it takes to hand over the
// connection and to read the answer is a part of it.
type subject struct {
	decide func(c *fwps.Call, v *fwps.Verdict) error
	// read fills in the verdict after decide, where that leaves it elsewhere.
	// It is not measured. Optional.
	read func(v *fwps.Verdict)
	// turn comes before a round, to go on with other memory. Optional.
	turn  func()
	close func()
}

// A variant is a way to make the decision.
type variant struct {
	name string
	kind string
	// host is what the variant's language cannot do itself, so that the host does.
	host  string
	start func(ctx context.Context) (*subject, error)
}

// The kinds of variants.
const (
	kindFloor  = "floor"
	kindGuest  = "calloutd, host/guest"
	kindEngine = "calloutd, whole engine"
	kindWasm   = "WebAssembly host"
	kindPolicy = "policy or expression language"
	kindScript = "script engine"
)

// recordByHost: the language has no bytes to make a record of.
const (
	recordByHost        = "record"
	listAndRecordByHost = "list, record"
)

func variants() []variant {
	var out []variant
	for _, group := range [][]variant{floors, guests(), engines(), peers} {
		out = append(out, group...)
	}
	return out
}

// peers are what is not ours.
var peers = []variant{
	{"waPC-go, C", kindWasm, "", startWaPC},
	{"http-wasm-host-go, C", kindWasm, "", startHTTPWasm},
	{"Extism go-sdk, C", kindWasm, "", startExtism},
	{"knqyf263/go-plugin, Go", kindWasm, "", startGoPlugin},
	{"OPA, Rego", kindPolicy, recordByHost, startRego},
	{"OPA, Rego as wasm", kindPolicy, recordByHost, startRegoWasm},
	{"cel-go", kindPolicy, listAndRecordByHost, startCEL},
	{"expr", kindPolicy, listAndRecordByHost, startExpr},
	{"goja (JavaScript)", kindScript, "", startGoja},
	{"gopher-lua", kindScript, "", startLua},
	{"starlark-go", kindScript, "", startStarlark},
}

// check makes sure that a subject decides like the closure, to the byte of the
// record, for every connection and again when each was asked before.
func (s *subject) check(ctx context.Context) error {
	native := sample.Native()
	for range 3 {
		for k, c := range sample.Calls() {
			var want, got fwps.Verdict
			if err := native(ctx, c, &want); err != nil {
				return err
			}
			if err := s.decide(c, &got); err != nil {
				return fmt.Errorf("connection %d: %w", k, err)
			}
			if s.read != nil {
				s.read(&got)
			}
			if answer(&want) != answer(&got) {
				return fmt.Errorf("connection %d to %v of %s: got %s, want %s", k, c.In.Remote, c.In.AppID, answer(&got), answer(&want))
			}
		}
	}
	return nil
}

// answer is all that a verdict says.
func answer(v *fwps.Verdict) string {
	if !v.Redirect {
		return v.Action.String()
	}
	return fmt.Sprintf("%v, redirect to %v of process %d, record %x", v.Action, v.To, v.TargetPID, v.Record)
}
