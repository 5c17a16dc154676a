package main

import (
	"context"

	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// nativeName is the row that all others are compared with, emptyName one that
// decides nothing and so is not checked.
const (
	nativeName = "native Go closure"
	emptyName  = "empty wazero call"
)

var floors = []variant{
	{nativeName, kindFloor, "", startNative},
	{emptyName, kindFloor, "everything", startEmpty},
}

func startNative(ctx context.Context) (*subject, error) {
	return callout(ctx, sample.Native(), func() {}), nil
}

// callout is a subject that is a callout.
func callout(ctx context.Context, f fwps.Callout, close func()) *subject {
	return &subject{close: close, decide: func(c *fwps.Call, v *fwps.Verdict) error { return f.Classify(ctx, c, v) }}
}

// empty is (module (func (export "f"))).
var empty = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x05\x01\x01f\x00\x00\x0a\x04\x01\x02\x00\x0b")

func startEmpty(ctx context.Context) (*subject, error) {
	rt := wazero.NewRuntime(ctx)
	mod, err := rt.Instantiate(ctx, empty)
	if err != nil {
		return nil, err
	}
	f, stack := mod.ExportedFunction("f"), make([]uint64, 1)
	return &subject{
		decide: func(*fwps.Call, *fwps.Verdict) error { return f.CallWithStack(ctx, stack) },
		close:  func() { _ = rt.Close(ctx) },
	}, nil
}

// finish fills in the verdict for a peer that says yes or no and leaves the
// record to the host.
func finish(c *fwps.Call, v *fwps.Verdict, redirect bool) {
	v.Action = fwp.ActionPermit
	if redirect {
		sample.Redirect(c, v)
	}
}
