package main

import (
	"context"
	"errors"

	extism "github.com/extism/go-sdk"

	"github.com/calloutd/calloutd/host/fwps"
)

func startExtism(ctx context.Context) (*subject, error) {
	wasm, err := embedded("extism")(ctx)
	if err != nil {
		return nil, err
	}
	p, err := extism.NewPlugin(ctx, extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: wasm}}}, extism.PluginConfig{}, nil)
	if err != nil {
		return nil, err
	}
	if _, _, err := p.CallWithContext(ctx, "configure", byteConfig()); err != nil {
		return nil, errors.Join(err, p.CloseWithContext(ctx))
	}
	var request []byte
	return &subject{
		decide: func(c *fwps.Call, v *fwps.Verdict) error {
			request = appendRequest(request[:0], c)
			_, b, err := p.CallWithContext(ctx, "classify", request)
			if err != nil {
				return err
			}
			return readAnswer(b, v)
		},
		close: func() { _ = p.CloseWithContext(ctx) },
	}, nil
}
