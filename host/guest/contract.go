package guest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/sdk/abi"
)

func checkSize(wasm []byte) error {
	if len(wasm) > MaxModuleSize {
		return as(ErrTooLarge, fmt.Errorf("module is %d bytes, the limit is %d", len(wasm), MaxModuleSize))
	}
	return nil
}

// check refuses what is no callout, in words that say what to do. The original
// is validated, not the metered form: what the rewriter reads is well formed.
func check(ctx context.Context, wasm []byte, maxPages uint32) error {
	if err := checkCore(wasm); err != nil {
		return err
	}
	core, err := meter.Strip(wasm)
	if err != nil {
		return ofMeter(err, "not a valid module: ")
	}
	// The interpreter validates the same and generates no machine code.
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(maxWasmPages))
	defer rt.Close(ctx)
	c, err := rt.CompileModule(ctx, core)
	if err != nil {
		return fmt.Errorf("not a valid module: %w", err)
	}
	if c.ExportedFunctions()["_start"] != nil {
		return as(ErrABI, errors.New("module is a command (it exports _start); build a reactor, in Go: go build -buildmode=c-shared"))
	}
	imports, err := meter.Imports(wasm)
	if err != nil {
		return err
	}
	return errors.Join(as(ErrABI, checkImports(imports, c)), as(ErrABI, checkExports(c)), checkMemory(c, maxPages))
}

// checkCore tells what begins like WebAssembly and is not.
func checkCore(wasm []byte) error {
	if len(wasm) >= 8 && string(wasm[:4]) == "\x00asm" && wasm[6] == 1 && wasm[7] == 0 {
		return as(ErrInvalid, errors.New("this is a WebAssembly component; build a core module (wasm32-wasip1, or wasm-tools component unbundle)"))
	}
	return nil
}

// plain quotes a name of the module's that could be taken for something else: a line of
// the message, say. One as long as the module would be a message as long.
func plain(name string) string {
	const most = 100
	if len(name) > most {
		return strconv.Quote(name[:most]) + "..."
	}
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// checkImports names what is not offered, not the first only.
func checkImports(imports []meter.Import, c wazero.CompiledModule) error {
	var unknown []string
	for _, i := range imports {
		if _, known := hostModules[i.Module][i.Name]; i.Kind != "function" || !known {
			unknown = append(unknown, fmt.Sprintf("%s.%s (%s)", plain(i.Module), plain(i.Name), i.Kind))
		}
	}
	const most = 20
	if more := len(unknown) - most; more > 0 {
		unknown = append(unknown[:most], fmt.Sprintf("and %d more", more))
	}
	if len(unknown) > 0 {
		return fmt.Errorf("module imports what this host does not offer: %s", strings.Join(unknown, ", "))
	}
	for _, f := range c.ImportedFunctions() {
		module, name, _ := f.Import()
		params, results := hostModules[module][name].types()
		if err := sameType(f, params, results); err != nil {
			return fmt.Errorf("import %s.%s %w", module, name, err)
		}
	}
	return nil
}

func sameType(f api.FunctionDefinition, params, results []api.ValueType) error {
	if slices.Equal(f.ParamTypes(), params) && slices.Equal(f.ResultTypes(), results) {
		return nil
	}
	return fmt.Errorf("has type %s, want %s", signature(f.ParamTypes(), f.ResultTypes()), signature(params, results))
}

var (
	i32s = []api.ValueType{api.ValueTypeI32}
	i64s = []api.ValueType{api.ValueTypeI64}
)

// exports are the functions of the ABI that this host calls.
var exports = []struct {
	name            string
	required        bool
	params, results []api.ValueType
}{
	{abi.ExportMarker, true, nil, i32s},
	{abi.ExportClassify, true, nil, i64s},
	{abi.ExportInit, false, i32s, i32s},
	{abi.ExportNotify, false, i32s, i32s},
	{abi.ExportIdle, false, i32s, i32s},
	{abi.ExportCaps, false, nil, i64s},
	{abi.ExportInitialize, false, nil, nil},
}

// missing is the error of a module without an export that it must have. One of another
// version of the ABI is told so.
func missing(name string, there map[string]api.FunctionDefinition) error {
	for _, other := range slices.Sorted(maps.Keys(there)) {
		if name == abiOfVersion+"1" && strings.HasPrefix(other, abiOfVersion) {
			return fmt.Errorf("module exports %s, not %s: it is a callout of another version of the ABI: build it with the SDK of this one", plain(other), name)
		}
	}
	return fmt.Errorf("module does not export function %s: it is no callout of ABI v1", name)
}

// abiOfVersion begins the export that says which version of the ABI a callout has.
const abiOfVersion = "callout_abi_v"

func checkExports(c wazero.CompiledModule) error {
	var errs []error
	for _, e := range exports {
		f := c.ExportedFunctions()[e.name]
		if f == nil {
			if e.required {
				errs = append(errs, missing(e.name, c.ExportedFunctions()))
			}
			continue
		}
		if err := sameType(f, e.params, e.results); err != nil {
			errs = append(errs, fmt.Errorf("export %s %w", e.name, err))
		}
	}
	return errors.Join(errs...)
}

func checkMemory(c wazero.CompiledModule, maxPages uint32) error {
	switch mem := c.ExportedMemories()[abi.ExportMemory]; {
	case mem == nil:
		return as(ErrABI, fmt.Errorf("module does not export its memory as %q", abi.ExportMemory))
	case mem.Min() > maxPages:
		return as(ErrTooLarge, fmt.Errorf("module starts with %d pages of memory, the limit is %d", mem.Min(), maxPages))
	}
	return nil
}

// signature prints the type of a function the way the text format does.
func signature(params, results []api.ValueType) string {
	names := func(ts []api.ValueType) string {
		var out []string
		for _, t := range ts {
			out = append(out, api.ValueTypeName(t))
		}
		return strings.Join(out, ", ")
	}
	return fmt.Sprintf("(%s) -> (%s)", names(params), names(results))
}
