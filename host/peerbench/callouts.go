package main

import (
	"context"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/sample"
)

//go:embed guests/c/*.wasm guests/rego guests/script
var files embed.FS

// A source is where a guest of ours comes from.
type source struct {
	language string
	wasm     func(ctx context.Context) ([]byte, error)
	config   func() ([]byte, error)
}

// sources are the examples of the SDKs, and what is here for the languages that
// have none.
var sources = []source{
	{"WAT", fromSDK("wat/split.wasm"), textConfig},
	{"C", fromSDK("c/example/split.wasm"), textConfig},
	{"C++", embedded("split"), func() ([]byte, error) { return byteConfig(), nil }},
	{"Rust", fromSDK("rust/examples/split.wasm"), textConfig},
	{"Zig", fromSDK("zig/example/split.wasm"), textConfig},
	{"AssemblyScript", fromSDK("assemblyscript/example/split.wasm"), textConfig},
	{"Go", func(ctx context.Context) ([]byte, error) { return buildGo(ctx, "./guests/go/split") }, func() ([]byte, error) { return byteConfig(), nil }},
	{"JavaScript", fromSDK("js/engine.wasm"), scriptConfig},
}

func fromSDK(file string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return readSDK(file) }
}

func readSDK(file string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join("..", "..", "sdk", filepath.FromSlash(file)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: peerbench is run in its folder, host/peerbench", err)
	}
	return b, err
}

func embedded(name string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return fs.ReadFile(files, "guests/c/"+name+".wasm") }
}

func textConfig() ([]byte, error) { return sample.Config(), nil }

// scriptConfig is the configuration of the engine for scripts: the policy and its
// own.
func scriptConfig() ([]byte, error) {
	text, err := readSDK("js/example/split.js")
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"script": string(text), "config": string(sample.Config())})
}

// byteConfig is the configuration of the guests that are here: the proxy's port
// and process, then address and mask of each network.
func byteConfig() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(sample.Proxy.Port()))
	b = binary.LittleEndian.AppendUint32(b, sample.PID)
	for _, p := range sample.Networks() {
		a := p.Addr().As4()
		b = binary.LittleEndian.AppendUint32(b, binary.BigEndian.Uint32(a[:]))
		b = binary.LittleEndian.AppendUint32(b, ^uint32(0)<<(32-p.Bits()))
	}
	return b
}

// instances of each guest take turns, round after round, and so do as many decisions of
// an engine: one of some hundred is a tenth to a third slower as long as it lives.
const instances = 4

// load starts a guest.
func (s source) load(ctx context.Context) (*guest.Module, func(), error) {
	wasm, err := s.wasm(ctx)
	if err != nil {
		return nil, nil, err
	}
	config, err := s.config()
	if err != nil {
		return nil, nil, err
	}
	rt, err := guest.NewRuntime(ctx, guest.Options{})
	if err != nil {
		return nil, nil, err
	}
	m, err := rt.Load(ctx, s.language, wasm, guest.ModuleOptions{Config: config, Slots: instances})
	if err != nil {
		_ = rt.Close(ctx)
		return nil, nil, err
	}
	return m, func() { _ = m.Close(ctx); _ = rt.Close(ctx) }, nil
}

func guests() (out []variant) {
	for _, s := range sources {
		out = append(out, variant{"guest, " + s.language, kindGuest, "", func(ctx context.Context) (*subject, error) {
			m, close, err := s.load(ctx)
			if err != nil {
				return nil, err
			}
			return callout(ctx, m, close), nil
		}})
	}
	return out
}

// engines are the closure and guests as the callout of a filter.
func engines() []variant {
	out := []variant{{"engine, Go closure", kindEngine, "", func(ctx context.Context) (*subject, error) {
		return classifier(ctx, sample.Native(), func() {})
	}}}
	for _, s := range sources {
		out = append(out, variant{"engine, " + s.language, kindEngine, "", func(ctx context.Context) (*subject, error) {
			m, close, err := s.load(ctx)
			if err != nil {
				return nil, err
			}
			return classifier(ctx, m, close)
		}})
	}
	return out
}

// classifier is an engine with a filter that asks f about every connection.
func classifier(ctx context.Context, f fwps.Callout, close func()) (*subject, error) {
	e := host.New(host.Options{})
	if _, _, err := e.RegisterCallout("split", f); err != nil {
		close()
		return nil, err
	}
	err := e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "split"}}
		p.Filters = []fwpm.Filter{{ID: 7, Name: "split", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "split"}}
		return nil
	})
	if err != nil {
		close()
		return nil, err
	}
	decisions, n := new([instances]fwps.Decision), 0
	d := &decisions[0]
	return &subject{
		decide: func(c *fwps.Call, _ *fwps.Verdict) error { e.Classify(ctx, c.In, d); return nil },
		read:   func(v *fwps.Verdict) { verdict(d, v) },
		turn:   func() { n++; d = &decisions[n%instances] },
		close:  close,
	}, nil
}

// verdict is what a decision made of the connection, as one callout says it.
func verdict(d *fwps.Decision, v *fwps.Verdict) {
	v.Action, v.Redirect = d.Action, d.Redirected()
	if v.Redirect {
		v.To, v.TargetPID, v.Record = d.Connect.Remote, d.Connect.LocalRedirectTargetPID, append(v.Record[:0], d.Connect.Record...)
	}
}
