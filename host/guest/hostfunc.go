package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/sdk/abi"
)

// What host calls cost. The fuel of the guest does not see the host's time.
const (
	hostCallBudget = 10_000 // calls of one decision, or one step of a start
	maxRandom      = 64 << 10
	maxPrint       = 1024 // bytes of one line
	bytesPerCall   = 256  // work on as many bytes counts as one more call
	randomPerCall  = 64   // but random ones are dear,
	linePerCall    = 128  // as are those of a line, which are copied several times
	itemsPerCall   = 16   // of a list that the guest hands over
	callsPerEntry  = 4    // storing one takes memory and may grow the map
)

var errHostCalls = errors.New("too many calls to the host in one decision")

// A hostFunc is what guests can import. It gets its parameters in stack and
// returns its result; without the capability it is not run.
type hostFunc struct {
	params, results string // i is i32, I is i64
	need            uint32
	call            func(i *instance, mem api.Memory, stack []uint64) uint64
	wrote           output // nil: its answers are always the same
}

// hostModules are all modules that guests can import from.
var hostModules = map[string]map[string]hostFunc{wasiModule: wasi, abi.ImportModule: callout}

// callout is the module of the ABI.
var callout = map[string]hostFunc{
	"log":          {"iii", "i", abi.CapLog, hostLog, nil},
	"random":       {"ii", "i", abi.CapRandom, hostRandom, nil},
	"wall":         {"", "I", abi.CapWall, hostWall, nil},
	"kv_get":       {"iiii", "i", abi.CapKV, kvGet, nil},
	"kv_set":       {"iiiii", "i", abi.CapKV, kvSet, nil},
	"kv_del":       {"ii", "i", abi.CapKV, kvDel, nil},
	"metric_add":   {"iiI", "i", abi.CapMetric, metricAdd, nil},
	"cidr_match":   {"i", "i", abi.CapSets, cidrMatch, nil},
	"table_lookup": {"i", "i", abi.CapTables, tableLookup, nil},
	"dns_names":    {"ii", "i", abi.CapNames, dnsNames, nil},
}

// pure are the calls that leave an answer cacheable: they depend on the request and
// the configuration alone, and nobody misses them where they are not made.
var pure = map[string]bool{"cidr_match": true, "table_lookup": true}

func (f hostFunc) types() (params, results []api.ValueType) {
	list := func(s string) (out []api.ValueType) {
		for _, c := range s {
			t := api.ValueTypeI32
			if c == 'I' {
				t = api.ValueTypeI64
			}
			out = append(out, t)
		}
		return out
	}
	return list(f.params), list(f.results)
}

// goFunc charges the call and makes it.
func (f hostFunc) goFunc(name string) api.GoModuleFunc {
	f.wrote = varies[name]
	pure := pure[name]
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		i, _ := ctx.Value(instanceKey{}).(*instance)
		if i == nil {
			panic(errors.New("host call without an instance"))
		}
		i.spendHost(1)
		i.impure = i.impure || !pure
		if f.need&^i.granted != 0 {
			stack[0] = failed(abi.ErrDenied)
			return
		}
		var result uint64
		if f.wrote != nil && i.journal != nil {
			result = i.through(name, &f, mod.Memory(), stack)
		} else {
			result = f.call(i, mod.Memory(), stack)
		}
		if f.results != "" {
			stack[0] = result
		}
	}
}

func instantiateHost(ctx context.Context, rt wazero.Runtime) error {
	for _, module := range slices.Sorted(maps.Keys(hostModules)) {
		b := rt.NewHostModuleBuilder(module)
		for name, f := range hostModules[module] {
			params, results := f.types()
			b.NewFunctionBuilder().WithGoModuleFunction(f.goFunc(name), params, results).Export(name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// failed is an error as the guest sees it, in an i32 or an i64.
func failed(code int64) uint64 { return uint64(code) }

func (i *instance) spendHost(n int) {
	if i.hostCalls -= n; i.hostCalls < 0 {
		panic(errHostCalls)
	}
}

// bytes is a part of the guest's memory, whose handling is charged.
func (i *instance) bytes(mem api.Memory, at, n uint64) ([]byte, bool) {
	b, inside := mem.Read(uint32(at), uint32(n))
	if inside {
		i.spendHost(len(b) / bytesPerCall)
	}
	return b, inside
}

// logFormats are by level, and so each level has a limit of its own.
var logFormats = [...]string{"callout %q: debug: %s", "callout %q: info: %s", "callout %q: warning: %s", "callout %q: error: %s"}

func hostLog(i *instance, mem api.Memory, s []uint64) uint64 {
	level, n := min(uint32(s[0]), uint32(len(logFormats)-1)), uint32(s[2])
	text, inside := mem.Read(uint32(s[1]), n)
	if !inside {
		return failed(abi.ErrPointer)
	}
	text = text[:min(n, maxPrint)]
	i.spendHost(len(text) / linePerCall)
	i.m.log.Printf(logFormats[level], i.m.name, strings.TrimRight(string(text), "\r\n"))
	return 0
}

func hostRandom(i *instance, mem api.Memory, s []uint64) uint64 {
	if uint32(s[1]) > maxRandom {
		return failed(abi.ErrTooLarge)
	}
	b, inside := i.bytes(mem, s[0], s[1])
	if !inside {
		return failed(abi.ErrPointer)
	}
	i.random(b)
	return 0
}

func (i *instance) random(b []byte) {
	i.spendHost((len(b) + randomPerCall - 1) / randomPerCall)
	_, _ = rand.Read(b) // It never fails.
}

func hostWall(*instance, api.Memory, []uint64) uint64 { return uint64(time.Now().UnixNano()) }

func metricAdd(i *instance, mem api.Memory, s []uint64) uint64 {
	name, inside := mem.Read(uint32(s[0]), uint32(s[1]))
	switch {
	case !inside:
		return failed(abi.ErrPointer)
	case len(name) == 0 || len(name) > maxMetricName || !utf8.Valid(name) || bytes.ContainsFunc(name, unprintable):
		return failed(abi.ErrTooLarge)
	case i.trial:
		return 0
	}
	return failed(i.m.metrics.add(name, int64(s[2]), i.generation))
}

// unprintable is what would move the cursor of who reads the figures.
func unprintable(c rune) bool { return !unicode.IsPrint(c) }

// remote is the address that the request is about.
func (i *instance) remote() (netip.Addr, bool) {
	if i.asked == nil {
		return netip.Addr{}, false
	}
	a := i.asked.In.Remote.Addr()
	if i.asked.Connect != nil {
		a = i.asked.Connect.Remote.Addr()
	}
	return a.Unmap(), a.IsValid()
}

func cidrMatch(i *instance, _ api.Memory, s []uint64) uint64 {
	addr, known := i.remote()
	switch n := uint32(s[0]); {
	case int64(n) >= int64(len(i.m.sets)):
		return failed(abi.ErrNotFound)
	case !known:
		return failed(abi.ErrUnsupported)
	case i.m.sets[n].Contains(addr):
		return 1
	}
	return 0
}

func tableLookup(i *instance, _ api.Memory, s []uint64) uint64 {
	addr, known := i.remote()
	n := uint32(s[0])
	switch {
	case int64(n) >= int64(len(i.m.tables)):
		return failed(abi.ErrNotFound)
	case !known:
		return failed(abi.ErrUnsupported)
	}
	value, found := i.m.tables[n].Lookup(addr)
	if !found {
		return failed(abi.ErrNotFound)
	}
	return uint64(value)
}

func dnsNames(i *instance, mem api.Memory, s []uint64) uint64 {
	addr, known := i.remote()
	if !known {
		return failed(abi.ErrUnsupported)
	}
	i.names = i.m.opts.Names(i.asked.In, addr, i.names[:0])
	buf, inside := i.bytes(mem, s[0], s[1])
	switch {
	case !inside:
		return failed(abi.ErrPointer)
	case len(i.names) == 0:
		return failed(abi.ErrNotFound)
	case len(i.names) > len(buf) || len(i.names) > math.MaxInt32:
		return failed(abi.ErrTooLarge)
	}
	return uint64(copy(buf, i.names))
}
