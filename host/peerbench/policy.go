package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// The decision in CEL and in expr. They have no bits to mask: the list is a
// function of the host.
const (
	celCondition  = `protocol == 6 && port == 443 && app.startsWith("/usr/bin/") && !listed(remote)`
	exprCondition = `Protocol == 6 && Port == 443 && App startsWith "/usr/bin/" && !Listed(Remote)`
)

func startCEL(ctx context.Context) (*subject, error) {
	list := sample.NewList()
	env, err := cel.NewEnv(
		cel.Variable("protocol", cel.IntType), cel.Variable("port", cel.IntType),
		cel.Variable("app", cel.StringType), cel.Variable("remote", cel.BytesType),
		cel.Function("listed", cel.Overload("listed_bytes", []*cel.Type{cel.BytesType}, cel.BoolType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				b, ok := v.(types.Bytes)
				a, valid := netip.AddrFromSlice(b)
				return types.Bool(ok && valid && list.Has(a))
			}))))
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(celCondition)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	vars := map[string]any{}
	return &subject{close: func() {}, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		a := c.Connect.Remote.Addr().As4()
		vars["protocol"], vars["port"] = types.Int(c.In.Protocol), types.Int(c.Connect.Remote.Port())
		vars["app"], vars["remote"] = types.String(c.In.AppID), types.Bytes(a[:])
		out, _, err := program.ContextEval(ctx, vars)
		if err != nil {
			return err
		}
		redirect, ok := out.(types.Bool)
		if !ok {
			return fmt.Errorf("%w: %v", errAnswer, out)
		}
		finish(c, v, bool(redirect))
		return nil
	}}, nil
}

// exprEnv is what an expression of expr sees.
type exprEnv struct {
	Protocol, Port int
	App            string
	Remote         netip.Addr
	Listed         func(netip.Addr) bool
}

func startExpr(context.Context) (*subject, error) {
	program, err := expr.Compile(exprCondition, expr.Env(exprEnv{}), expr.AsBool())
	if err != nil {
		return nil, err
	}
	env, machine := exprEnv{Listed: sample.NewList().Has}, new(vm.VM)
	return &subject{close: func() {}, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		env.Protocol, env.Port, env.App, env.Remote = int(c.In.Protocol), int(c.Connect.Remote.Port()), c.In.AppID, c.Connect.Remote.Addr()
		out, err := machine.Run(program, env)
		if err != nil {
			return err
		}
		redirect, ok := out.(bool)
		if !ok {
			return errors.New("the expression is not true or false")
		}
		finish(c, v, redirect)
		return nil
	}}, nil
}
