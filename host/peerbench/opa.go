package main

import (
	"context"
	"fmt"

	_ "github.com/open-policy-agent/opa/v1/features/wasm" // the target
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

func startRego(ctx context.Context) (*subject, error)     { return startOPA(ctx, "rego") }
func startRegoWasm(ctx context.Context) (*subject, error) { return startOPA(ctx, "wasm") }

// startOPA prepares the query for one of OPA's own evaluators.
func startOPA(ctx context.Context, target string) (*subject, error) {
	module, err := files.ReadFile("guests/rego/decision.rego")
	if err != nil {
		return nil, err
	}
	var networks []any
	for _, p := range sample.Networks() {
		networks = append(networks, p.String())
	}
	query, err := rego.New(rego.Query("data.callout.redirect"), rego.Module("decision.rego", string(module)), rego.Target(target),
		rego.Store(inmem.NewFromObject(map[string]any{"networks": networks}))).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	return &subject{close: func() {}, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		result, err := query.Eval(ctx, rego.EvalInput(map[string]any{
			"protocol": int(c.In.Protocol), "port": int(c.Connect.Remote.Port()),
			"remote": c.Connect.Remote.Addr().String(), "app": c.In.AppID}))
		if err != nil {
			return err
		}
		if len(result) != 1 || len(result[0].Expressions) != 1 {
			return fmt.Errorf("%w: %v", errAnswer, result)
		}
		redirect, ok := result[0].Expressions[0].Value.(bool)
		if !ok {
			return fmt.Errorf("%w: %v", errAnswer, result)
		}
		finish(c, v, redirect)
		return nil
	}}, nil
}
