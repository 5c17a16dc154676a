package guest

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/sdk/abi"
)

// A Report is what there is to know of a module before a policy trusts it.
type Report struct {
	*meter.Summary
	Size     int    // of the file
	Language string // that it was written in, empty if nothing tells
	// Refused is why this host does not load it, nil if it does. What follows is
	// known as far as it came.
	Refused            error
	Required, Optional []string // capabilities
	Block              uint32   // address of the exchange block
	Pages              uint32   // of memory after it has started and answered
	Canned             *Canned  // nil: it was not asked
}

// Canned is the answer to a connection that is always the same: TCP to
// 192.0.2.1:1.
type Canned struct {
	Action, Reason string
	Fuel           int // in units of meter
	Err            error
}

// Inspect looks into a module, starts it with a configuration, and asks it once.
// An error is a file that is no module, one that takes too much to look into
// (Options.CompileApart), or the cause of a context that has ended.
func Inspect(ctx context.Context, wasm, config []byte, o Options) (*Report, error) {
	if err := checkSize(wasm); err != nil {
		return nil, err
	}
	if err := checkCore(wasm); err != nil {
		return nil, err
	}
	rt, err := NewRuntime(ctx, o)
	if err != nil {
		return nil, err
	}
	defer rt.Close(context.WithoutCancel(ctx))
	summary, err := rt.summary(ctx, wasm)
	if err != nil {
		return nil, err
	}
	r := &Report{Summary: summary, Size: len(wasm), Language: language(wasm, summary)}
	err = r.try(ctx, rt, wasm, config)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r.Refused = as(ErrSelfTest, err)
	return r, nil
}

// summary is the meter's, from where the module can take as much as it likes.
func (r *Runtime) summary(ctx context.Context, wasm []byte) (*meter.Summary, error) {
	if r.apart == nil || r.kept.get(r.kept.key(r.pages, guarded, wasm)) != nil { // What was metered once can be again.
		s, err := meter.Inspect(wasm)
		return s, ofMeter(err, "")
	}
	ctx, cancel := r.limited(ctx)
	defer cancel()
	return r.apart.inspect(ctx, wasm)
}

// try starts an instance, with everything that a host can grant.
func (r *Report) try(ctx context.Context, rt *Runtime, wasm, config []byte) error {
	o := ModuleOptions{Sets: make([][]netip.Prefix, 1), Tables: make([][]Row, 1),
		Names: func(_ *fwps.Incoming, _ netip.Addr, buf []byte) []byte { return buf }}
	if err := o.defaults(); err != nil {
		return err
	}
	src, err := rt.compile(ctx, wasm, guarded)
	if err != nil {
		return err
	}
	defer src.close()
	src.config = config
	m := &Module{name: "module", rt: rt, opts: o, log: loglimit.New(o.Logf), breaker: breaker{last: make([]time.Time, 1)}}
	i, err := m.begin(src, 0)
	if err != nil {
		return err
	}
	defer i.close()
	if answer, err := i.call(abi.ExportCaps); err == nil {
		r.Required, r.Optional = capList(uint32(answer)), capList(uint32(answer>>32))
	}
	if err := i.prepare(src); err != nil {
		return err
	}
	if answer, err := i.call(abi.ExportMarker); err == nil {
		r.Block = uint32(answer)
	}
	r.Canned = i.canned()
	r.Pages = i.mod.Memory().Size() / 65536
	return r.Canned.Err
}

// canned asks twice: what a guest does once only is no part of what a decision
// costs.
func (i *instance) canned() *Canned {
	c, v := &Canned{}, new(fwps.Verdict)
	for range 2 {
		v.Reset()
		if c.Err = encode(i.block, &canned, i.m.rt.clock.read()); c.Err != nil {
			return c
		}
		before := i.left()
		if _, c.Err = i.ask(&canned, v); c.Err != nil {
			return c
		}
		c.Fuel = i.took(before)
	}
	c.Action, c.Reason = v.Action.String(), v.Reason
	if v.Redirect {
		c.Action = "redirect"
	}
	return c
}

func capList(caps uint32) []string {
	if caps == 0 {
		return nil
	}
	return strings.Split(capNames(caps), ", ")
}

// tells are what compilers leave behind in modules whose producers were stripped.
var tells = []struct {
	bytes    string
	language string
}{
	{"callout-script-1", "JavaScript, run by QuickJS"},
	{"c\x00a\x00l\x00l\x00o\x00u\x00t\x00", "AssemblyScript"}, // Its SDK's texts are UTF-16.
	{"library/core/src/", "Rust"},
	{"src/wire.rs", "Rust"}, // a file of its SDK
}

// language is what the section "producers" says, or else what the code tells.
func language(wasm []byte, s *meter.Summary) string {
	for _, p := range s.Producers {
		if p.Field == "language" {
			return p.Name
		}
	}
	for _, p := range s.Producers {
		switch {
		case p.Field != "processed-by":
		case strings.Contains(p.Name, "rustc"):
			return "Rust"
		case strings.Contains(p.Name, "clang"):
			return "C or C++"
		}
	}
	for _, t := range tells {
		if bytes.Contains(wasm, []byte(t.bytes)) {
			return t.language
		}
	}
	return ""
}
