// Package tck is the compatibility kit of the guest ABI: one table of calls that
// the mirror guest of every language (mirror.md) must answer with equal bytes. A
// language joins by passing Run.
package tck

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/calloutd/calloutd/sdk/abi"
)

var le = binary.LittleEndian

// Options say what a language cannot do. The zero value is all.
type Options struct {
	// Total: the language has no verdict that is none.
	Total bool
	// Interprets: the guest is itself an interpreter. It is compiled, since one that
	// runs another is slow.
	Interprets bool
}

// Run asks a mirror guest everything.
func Run(t *testing.T, wasm []byte, o Options) {
	k := newKit(t, wasm, o)
	t.Run("contract", func(t *testing.T) {
		g := k.start(t, 0)
		require.Zero(t, g.at%abi.BlockAlign, "the block is aligned")
		require.EqualValues(t, uint64(0xff)<<32, g.call(abi.ExportCaps), "asks for every capability")
	})
	for _, c := range calls(o) {
		t.Run(c.name, func(t *testing.T) {
			g := k.start(t, 0)
			require.Zero(t, int32(g.configure(nil)))
			g.ask(c)
			g.ask(c) // Nothing is left over from a call.
		})
	}
	t.Run("all calls one after the other", func(t *testing.T) {
		g := k.start(t, 0)
		require.Zero(t, int32(g.configure(nil)))
		for _, c := range calls(o) {
			g.ask(c)
		}
	})
	for _, config := range []string{"", "x", "hello, callout", long(8192), long(8193), long(20000)} {
		t.Run(fmt.Sprintf("configuration of %d bytes", len(config)), func(t *testing.T) {
			g := k.start(t, 0x5a)
			require.Zero(t, int32(g.configure([]byte(config))))
			g.ask(call{"", request{port: 99}, configured(0x5a, config)})
		})
	}
	t.Run("events", func(t *testing.T) {
		g := k.start(t, 0)
		require.Zero(t, int32(g.configure(nil)))
		for _, e := range events {
			g.tell(e)
			g.ask(calls(o)[0]) // Nothing is left over from an event.
		}
	})
	t.Run("a configuration is refused", func(t *testing.T) {
		g := k.start(t, 0)
		require.NotZero(t, int32(g.configure([]byte("!"))))
		require.Equal(t, "refused", g.reason())
	})
}

// long is a text of n bytes of which no two parts are the same.
func long(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%23)
	}
	return string(b)
}

type kit struct {
	rt       wazero.Runtime
	compiled wazero.CompiledModule
}

func newKit(t *testing.T, wasm []byte, o Options) *kit {
	config := wazero.NewRuntimeConfigInterpreter() // It compiles a large guest in no time.
	if o.Interprets {
		config = wazero.NewRuntimeConfig()
	}
	k := &kit{rt: wazero.NewRuntimeWithConfig(t.Context(), config)}
	t.Cleanup(func() { k.rt.Close(context.Background()) })
	_, err := wasi_snapshot_preview1.Instantiate(t.Context(), k.rt)
	require.NoError(t, err)
	k.compiled, err = k.rt.CompileModule(t.Context(), wasm)
	require.NoError(t, err)
	k.deny(t)
	return k
}

// deny is a host that grants nothing: every function that the guest imports is
// there and says so.
func (k *kit) deny(t *testing.T) {
	b := k.rt.NewHostModuleBuilder(abi.ImportModule)
	denied := api.GoFunc(func(_ context.Context, stack []uint64) {
		code := int64(abi.ErrDenied)
		stack[0] = uint64(code)
	})
	for _, f := range k.compiled.ImportedFunctions() {
		if module, name, _ := f.Import(); module == abi.ImportModule {
			b.NewFunctionBuilder().WithGoFunction(denied, f.ParamTypes(), f.ResultTypes()).Export(name)
		}
	}
	_, err := b.Instantiate(t.Context())
	require.NoError(t, err)
}

// A guest is an instance under test.
type guest struct {
	t       *testing.T
	mod     api.Module
	at      uint32
	granted uint32
}

func (k *kit) start(t *testing.T, granted uint32) *guest {
	mod, err := k.rt.InstantiateModule(t.Context(), k.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	require.NoError(t, err)
	t.Cleanup(func() { mod.Close(context.Background()) })
	g := &guest{t: t, mod: mod, granted: granted}
	g.at = uint32(g.call(abi.ExportMarker))
	return g
}

func (g *guest) call(name string, args ...uint64) uint64 {
	f := g.mod.ExportedFunction(name)
	require.NotNil(g.t, f, name)
	res, err := f.Call(g.t.Context(), args...)
	require.NoError(g.t, err)
	return res[0]
}

// block is a view of the exchange block, good until the next call.
func (g *guest) block() []byte {
	b, inside := g.mod.Memory().Read(g.at, abi.BlockSize)
	require.True(g.t, inside)
	return b
}

// configure hands over a configuration in chunks and returns the last answer.
func (g *guest) configure(config []byte) (answer uint64) {
	for first := true; first || len(config) > 0; first = false {
		b := g.block()
		clear(b)
		le.PutUint32(b[abi.ResponseOffset+abi.InitSize:], 12)
		le.PutUint32(b[abi.ResponseOffset+abi.InitGranted:], g.granted)
		n := copy(b[:abi.InitChunk], config)
		arg := uint64(n)
		if config = config[n:]; len(config) > 0 {
			arg |= abi.InitMore
		}
		if answer = g.call(abi.ExportInit, arg); int32(answer) != 0 {
			break
		}
	}
	return answer
}

func (g *guest) reason() string {
	b := g.block()
	r := b[abi.ResponseOffset:]
	off, n := le.Uint32(r[abi.RespReason:]), le.Uint32(r[abi.RespReason+4:])
	require.LessOrEqual(g.t, uint64(off)+uint64(n), uint64(len(b)))
	return string(b[off : off+n])
}

// tell lets it hear of an event.
func (g *guest) tell(e event) {
	b := g.block()
	clear(b)
	le.PutUint32(b[abi.ReqSize:], abi.RequestHeader)
	le.PutUint16(b[abi.ReqLayer:], e.layer)
	le.PutUint64(b[abi.ReqFilter:], e.filter)
	le.PutUint64(b[abi.ReqConnection:], e.connection)
	le.PutUint64(b[abi.ResponseOffset+abi.RespCookie:], e.cookie)
	code := int32(g.call(abi.ExportNotify, uint64(e.kind)))
	require.Equal(g.t, e.refused != "", code != 0, "%s: code %d", e.name, code)
	if code != 0 {
		require.Equal(g.t, e.refused, g.reason(), e.name)
	}
}

// ask makes a call and compares all bytes of the answer.
func (g *guest) ask(c call) {
	b := g.block()
	clear(b)
	c.request.write(b)
	packed := g.call(abi.ExportClassify)
	wantPacked, want := c.answer.bytes()
	require.Equal(g.t, fmt.Sprintf("%#x", wantPacked), fmt.Sprintf("%#x", packed), "%s: packed answer, reason %q", c.name, g.reason())
	got := g.block()[abi.ResponseOffset:]
	require.Equal(g.t, want[:abi.ResponseHeader], got[:abi.ResponseHeader], "%s: header of the response", c.name)
	require.Equal(g.t, want, got[:len(want)], "%s: response", c.name)
}
