package main

import (
	"context"
	"errors"
	"io"

	"github.com/wapc/wapc-go"
	wapcwazero "github.com/wapc/wapc-go/engines/wazero"

	"github.com/calloutd/calloutd/host/fwps"
)

func startWaPC(ctx context.Context) (*subject, error) {
	wasm, err := embedded("wapc")(ctx)
	if err != nil {
		return nil, err
	}
	m, err := wapcwazero.Engine().New(ctx, wapc.NoOpHostCallHandler, wasm, &wapc.ModuleConfig{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		return nil, err
	}
	i, err := m.Instantiate(ctx)
	if err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	if _, err := i.Invoke(ctx, "configure", byteConfig()); err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	var request []byte
	return &subject{
		decide: func(c *fwps.Call, v *fwps.Verdict) error {
			request = appendRequest(request[:0], c)
			b, err := i.Invoke(ctx, "classify", request)
			if err != nil {
				return err
			}
			return readAnswer(b, v)
		},
		close: func() { _ = i.Close(ctx); _ = m.Close(ctx) },
	}, nil
}
