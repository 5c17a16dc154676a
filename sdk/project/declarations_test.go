package project_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/sdk/project"
)

// A declared is something that callout.d.ts says scripts have.
type declared struct {
	name     string // as a script writes it
	params   []param
	returns  string
	property bool
}

type param struct {
	types    string
	optional bool
}

var (
	blocks  = regexp.MustCompile(`(?ms)^(?:interface|declare const) (\w+):? \{\n(.*?)^\}`)
	members = regexp.MustCompile(`(?m)^(?:  (?:readonly )?|declare function )(\w+)(?:\((.*)\))?: (.+);$`)
	params  = regexp.MustCompile(`(\w+)(\??): ([^,]+)`)
)

// declarations are all of the file, by the block they stand in; functions have none.
func declarations(t *testing.T) map[string][]declared {
	src, err := os.ReadFile(filepath.Join("..", "js", "callout.d.ts"))
	require.NoError(t, err)
	all := map[string][]declared{}
	read := func(block, text string) {
		for _, m := range members.FindAllStringSubmatch(text, -1) {
			d := declared{name: m[1], returns: m[3], property: !strings.Contains(m[0], "(")}
			for _, p := range params.FindAllStringSubmatch(m[2], -1) {
				d.params = append(d.params, param{p[3], p[2] != ""})
			}
			all[block] = append(all[block], d)
		}
	}
	rest := string(src)
	for _, b := range blocks.FindAllStringSubmatch(rest, -1) {
		read(b[1], b[2])
		rest = strings.Replace(rest, b[0], "", 1)
	}
	read("", rest)
	return all
}

// harness is what the test's script begins with: values of the types that a script has,
// right as addresses, ports and keys where the type is, and what each type means.
const harness = `
const values = {"number": 2, "string": "192.0.2.7", "bigint": 3n, "Uint8Array": Uint8Array.of(192, 0, 2, 7), "number[]": [192, 0, 2, 7],
  "boolean": true, "undefined": undefined, "null": null, "object": {}, "function": () => 0};
const types = {"void": v => v === undefined, "undefined": v => v === undefined, "number": v => typeof v == "number", "string": v => typeof v == "string",
  "bigint": v => typeof v == "bigint", "boolean": v => typeof v == "boolean", "Uint8Array": v => v instanceof Uint8Array,
  "ArrayBuffer": v => v instanceof ArrayBuffer, "string[]": v => Array.isArray(v) && v.every(s => typeof s == "string"),
  "Verdict": v => v instanceof permit().constructor};
function is(v, type) {
  if (!type.split(" | ").some(t => types[t](v))) throw new Error("expected " + type + " and not " + typeof v);
  return v;
}
function refuses(f, why = "") {
  try {
    f();
  } catch (e) {
    if (e instanceof TypeError && e.message.includes(why)) return;
    throw e;
  }
  throw new Error("it was taken");
}
function takes(f, n) {
  if (f.length !== n) throw new Error("it takes " + f.length);
}
`

// every are the types of values in harness; an answer that fails costs an instance, so few
// are tried there.
var (
	every = []string{"number", "string", "bigint", "Uint8Array", "number[]", "boolean", "undefined", "null", "object", "function"}
	few   = []string{"number", "string", "bigint", "Uint8Array", "undefined", "object"}
)

// A use is something that a script does with the call, right by the declarations or wrong.
type use struct {
	code  string // ends with the answer, if it is about one
	right bool
}

// uses calls a function with each given type in the place of each parameter. form has its
// name and arguments put in. One that forgives takes undefined for nothing.
func (d declared) uses(form string, forgives bool, given ...string) (all []use) {
	for k, p := range d.params {
		for _, v := range given {
			right := p.types == "unknown" || slices.Contains(strings.Split(p.types, " | "), v) || v == "undefined" && p.optional
			if v == "undefined" && forgives && !right {
				continue
			}
			var args []string
			for _, q := range d.params {
				args = append(args, strings.Split(q.types, " | ")[0])
			}
			args[k] = v
			all = append(all, use{fmt.Sprintf(form, d.name, arguments(args)), right})
		}
	}
	if len(d.params) == 0 {
		all = append(all, use{fmt.Sprintf(form, d.name, ""), true})
	}
	return all
}

func arguments(types []string) string {
	for k, t := range types {
		types[k] = fmt.Sprintf("values[%q]", strings.ReplaceAll(t, "unknown", "string"))
	}
	return strings.Join(types, ", ")
}

// What callout.d.ts says of the types is what the engine does: what comes has them,
// functions take as many arguments, and what is of another type is refused and not
// taken for a number, or an address, that nobody meant.
func TestTypesOfDeclarationsAreTheEngines(t *testing.T) {
	all := declarations(t)
	var uses []use
	for _, d := range all["Call"] {
		uses = append(uses, use{fmt.Sprintf("is(call.%s, %q)", d.name, d.returns), true})
	}
	for _, d := range all["host"] {
		uses = append(uses, use{fmt.Sprintf("takes(host.%s, %d)", d.name, len(d.params)), true})
		for _, u := range d.uses("is(host.%s(%s), "+fmt.Sprintf("%q)", d.returns), false, every...) {
			if !u.right {
				u = use{"refuses(() => " + u.code + ")", true}
			}
			uses = append(uses, u)
		}
	}
	// An answer says a reason or not: that one is declared is for people.
	for _, d := range all["Verdict"] {
		uses = append(uses, use{fmt.Sprintf("takes(permit().%s, %d)", d.name, len(d.params)), true})
		uses = append(uses, d.uses(`return is(redirect("192.0.2.7", 2, 2).%s(%s), "Verdict")`, true, few...)...)
	}
	for _, d := range all[""] {
		uses = append(uses, use{fmt.Sprintf("takes(%s, %d)", d.name, len(d.params)), true})
		if d.name != "failed" { // whose every use is an error
			uses = append(uses, d.uses(`return is(%s(%s), "Verdict")`, d.name != "redirect", few...)...)
		}
	}
	uses = append(uses, numbers()...)
	require.Greater(t, len(uses), 200)
	hears := ""
	for _, d := range all["CalloutEvent"] {
		hears += fmt.Sprintf("is(e.%s, %q);", d.name, d.returns)
	}

	m := scripted(t, uses, hears)
	require.NoError(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 7}))
	for n, u := range uses {
		err := classify(t, m, n)
		if u.right {
			assert.NoError(t, err, u.code)
		} else {
			assert.ErrorContains(t, err, "TypeError: ", u.code)
		}
	}
}

// first is the port of the first use. A module that is loaded is asked about port 1.
const first = 2

// numbers are what TypeScript cannot know to be wrong: one that is none of a set or a port.
func numbers() (uses []use) {
	const wants = "expected a whole number from 0 to 4294967295"
	for _, n := range []string{"NaN", "-1", "1.5", "4294967296", "Infinity"} {
		for _, call := range []string{"host.inSet(", "host.lookup(", "host.random(", `host.set("k", "v", `} {
			uses = append(uses, use{fmt.Sprintf("refuses(() => %s%s), %q)", call, n, wants), true})
		}
	}
	return append(uses, use{`return redirect("192.0.2.7", 8443, -1)`, false}, use{`return redirect("192.0.2.7", 8443)`, false},
		use{"host.inSet(2.0)", true}, use{"host.set('k', 'v', 0)", true}, use{`return redirect("192.0.2.7", 65535, 4294967295)`, true})
}

// scripted is a module whose script does the use with the number of the port.
func scripted(t *testing.T, uses []use, hears string) *guest.Module {
	var script strings.Builder
	fmt.Fprintf(&script, "%s\nconst first = %d, uses = [\n", harness, first)
	for _, u := range uses {
		fmt.Fprintf(&script, "call => { %s },\n", u.code)
	}
	fmt.Fprintf(&script, "];\nfunction classify(call) { return uses[call.remotePort - first]?.(call) ?? permit(); }\nfunction notify(e) { %s }\n", hears)
	wasm, err := project.WithScript(engine(t), []byte(script.String()))
	require.NoError(t, err)
	rt, err := guest.NewRuntime(t.Context(), guest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, rt.Close(context.Background())) })
	everything := netip.MustParsePrefix("0.0.0.0/0")
	m, err := rt.Load(t.Context(), "js", wasm, guest.ModuleOptions{Slots: 1, MaxFailures: -1,
		Sets: [][]netip.Prefix{{}, {}, {everything}}, Tables: [][]guest.Row{{}, {}, {{Prefix: everything, Value: 5}}},
		Names: func(_ *fwps.Incoming, _ netip.Addr, b []byte) []byte { return append(b, "example.com\x00"...) }})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close(context.Background())) })
	return m
}

func classify(t *testing.T, m *guest.Module, n int) error {
	remote := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(first+n))
	return m.Classify(t.Context(), &fwps.Call{Filter: &fwpm.Filter{ID: 7}, Connect: &fwps.ConnectRequest{Remote: remote},
		In: &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: fwps.ProtocolTCP, Remote: remote, AppID: "/usr/bin/curl", ProcessID: 9, UserKnown: true}}, new(fwps.Verdict))
}
