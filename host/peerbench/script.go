package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/dop251/goja"
	lua "github.com/yuin/gopher-lua"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

func script(name string) (string, error) {
	b, err := files.ReadFile("guests/script/" + name)
	return string(b), err
}

// pairs are the networks as address and mask in turn.
func pairs() (out []uint32) {
	for _, p := range sample.Networks() {
		a := p.Addr().As4()
		out = append(out, binary.BigEndian.Uint32(a[:]), ^uint32(0)<<(32-p.Bits()))
	}
	return out
}

// remember fills in the verdict of a script that returned a record, or nothing.
func remember(v *fwps.Verdict, record []byte) {
	if v.Action = fwp.ActionPermit; record != nil {
		v.Redirect, v.To, v.TargetPID = true, sample.Proxy, sample.PID
		v.Record = append(v.Record[:0], record...)
	}
}

func startGoja(context.Context) (*subject, error) {
	text, err := script("decision.js")
	if err != nil {
		return nil, err
	}
	vm := goja.New()
	if err := vm.Set("networks", vm.ToValue(pairs()).Export()); err != nil {
		return nil, err
	}
	if _, err := vm.RunString("networks = Array.from(networks)\n" + text); err != nil {
		return nil, err
	}
	decide, ok := goja.AssertFunction(vm.Get("decide"))
	if !ok {
		return nil, fmt.Errorf("decision.js has no function decide")
	}
	return &subject{close: func() {}, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		a := c.Connect.Remote.Addr().As16()
		out, err := decide(goja.Undefined(), vm.ToValue(c.In.Protocol), vm.ToValue(c.Connect.Remote.Port()), vm.ToValue(vm.NewArrayBuffer(a[:])),
			vm.ToValue(c.In.AppID), vm.ToValue(c.In.ProcessID), vm.ToValue(c.In.EndpointID))
		if err != nil {
			return err
		}
		if goja.IsNull(out) {
			remember(v, nil)
			return nil
		}
		record, ok := out.Export().(goja.ArrayBuffer)
		if !ok {
			return fmt.Errorf("%w: %v", errAnswer, out)
		}
		remember(v, record.Bytes())
		return nil
	}}, nil
}

func startLua(context.Context) (*subject, error) {
	text, err := script("decision.lua")
	if err != nil {
		return nil, err
	}
	l := lua.NewState()
	networks := l.NewTable()
	for _, n := range pairs() {
		networks.Append(lua.LNumber(n))
	}
	l.SetGlobal("networks", networks)
	if err := l.DoString(text); err != nil {
		l.Close()
		return nil, err
	}
	decide := lua.P{Fn: l.GetGlobal("decide"), NRet: 1, Protect: true}
	return &subject{close: l.Close, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		a := c.Connect.Remote.Addr().As16()
		if err := l.CallByParam(decide, lua.LNumber(c.In.Protocol), lua.LNumber(c.Connect.Remote.Port()), lua.LString(a[:]),
			lua.LString(c.In.AppID), lua.LNumber(c.In.ProcessID), lua.LNumber(c.In.EndpointID)); err != nil {
			return err
		}
		out := l.Get(-1)
		l.Pop(1)
		switch record := out.(type) {
		case *lua.LNilType:
			remember(v, nil)
		case lua.LString:
			remember(v, []byte(record))
		default:
			return fmt.Errorf("%w: %v", errAnswer, out)
		}
		return nil
	}}, nil
}

func startStarlark(context.Context) (*subject, error) {
	text, err := script("decision.star")
	if err != nil {
		return nil, err
	}
	var networks starlark.Tuple
	for p := pairs(); len(p) > 0; p = p[2:] {
		networks = append(networks, starlark.Tuple{starlark.MakeUint64(uint64(p[0])), starlark.MakeUint64(uint64(p[1]))})
	}
	thread := new(starlark.Thread)
	globals, err := starlark.ExecFileOptions(new(syntax.FileOptions), thread, "decision.star", text, starlark.StringDict{"networks": networks})
	if err != nil {
		return nil, err
	}
	return &subject{close: func() {}, decide: func(c *fwps.Call, v *fwps.Verdict) error {
		a := c.Connect.Remote.Addr().As16()
		out, err := starlark.Call(thread, globals["decide"], starlark.Tuple{starlark.MakeInt(int(c.In.Protocol)), starlark.MakeInt(int(c.Connect.Remote.Port())),
			starlark.Bytes(a[:]), starlark.String(c.In.AppID), starlark.MakeUint64(uint64(c.In.ProcessID)), starlark.MakeUint64(c.In.EndpointID)}, nil)
		if err != nil {
			return err
		}
		switch record := out.(type) {
		case starlark.NoneType:
			remember(v, nil)
		case starlark.Bytes:
			remember(v, []byte(record))
		default:
			return fmt.Errorf("%w: %v", errAnswer, out)
		}
		return nil
	}}, nil
}
