package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notRunHere are the commands of documents that are not run as they stand, and why.
var notRunHere = map[string]string{
	// Two terminals. TestAnAgentTakesPoliciesWhileItsCommandRuns does the same.
	"go run ./examples/agent -policy examples/quickstart/policy.yaml -- sh":                   "it waits for somebody who types",
	"curl -sN --unix-socket agent.sock http://agent/decisions":                                "it needs the agent",
	"curl -s --unix-socket agent.sock -T examples/conditions/policy.yaml http://agent/policy": "it needs the agent",
	// TestWorks and the script run_proxy do the same, with servers that listen already.
	"python3 -m http.server 8000 --bind 127.0.0.1 &":                                                             "it has no end",
	"go run ./cmd/calloutd run --policy examples/forward/policy.yaml --trace -- curl -sI http://127.0.0.1:8000/": "it needs the server",
	// The tests of serve and explore do the same.
	"calloutd explore --open examples/forward":                                                           "it opens a browser, and has no end",
	"go run ./cmd/calloutd explore --open examples/quickstart":                                           "it opens a browser, and has no end",
	"calloutd serve --policy /etc/calloutd/policy.yaml --cgroup /sys/fs/cgroup/system.slice/web.service": "it has no end",
	"curl --unix-socket /run/calloutd/control.sock http://calloutd/readyz":                               "it needs the daemon",
	"calloutd gateway --policy FILE --interface docker0":                                                 "it needs a router, and has no end",
	"go run ./host/enforce/costbench":                                                                    "it takes an hour",
	// It is about a machine that has them.
	"conntrack -L | calloutd record --from conntrack --out now.flight":                                                              "it needs connections that a router tracks",
	"calloutd diff old.yaml new.yaml --over now.flight --fail-on 'block->permit'":                                                   "it needs the file of the line before",
	"netsh advfirewall firewall show rule name=all verbose > rules.txt":                                                             "it needs Windows",
	"for l in c rust zig wat assemblyscript go js; do calloutd bench sdk/soak/$l.yaml --soak 10000000 --plot sdk/soak/$l.svg; done": "it takes hours",
	// Package tck builds and tests every example with the compilers.
	"clang -c --target=wasm32 -O3 -mbulk-memory -I sdk/c policy.c -o policy.o":     "package tck builds the document's program with it",
	"wasm-ld --no-entry --stack-first -z stack-size=65536 policy.o -o policy.wasm": "package tck builds the document's program with it",
	"GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o policy.wasm .":        "package tck builds the document's program with it",
	"node --test test/":                "it is about a folder of the reader's",
	"wat2wasm split.wat -o split.wasm": "it is about a file of the reader's",
	"rustc --edition 2021 --crate-type lib --crate-name callout -C opt-level=3 -C panic=abort -C target-feature=+bulk-memory --target wasm32-unknown-unknown sdk/rust/src/lib.rs -o libcallout.rlib":                                       "package tck builds the document's program with it",
	"rustc --edition 2021 --crate-type cdylib -C opt-level=3 -C panic=abort -C strip=debuginfo -C linker=wasm-ld -C target-feature=+bulk-memory --target wasm32-unknown-unknown --extern callout=libcallout.rlib policy.rs -o policy.wasm": "package tck builds the document's program with it",
	"zig build-lib -target wasm32-freestanding -dynamic -rdynamic -O ReleaseFast --mod callout::sdk/zig/callout.zig --deps callout policy.zig":                                                                                             "package tck builds the document's program with it",
	"zig test --mod callout::sdk/zig/callout.zig --deps callout sdk/zig/example/split.zig":                                                                                                                                                 "it needs a package of npm",
	"asc policy.ts -O3 --runtime incremental --use abort= -o policy.wasm":                                                                                                                                                                  "package tck builds the document's program with it",
	"RUSTFLAGS=-Ctarget-feature=+bulk-memory cargo build --release --target wasm32-unknown-unknown":                                                                                                                                        "it needs a target of rustup",
	// The story stranger does all that a module of one's own needs.
	"go mod init example.com/mine":                                  "it needs a clone beside it",
	"go mod edit -replace github.com/calloutd/calloutd=../calloutd": "it needs a clone beside it",
	"go mod tidy": "it needs a clone beside it",
	"go run . ../calloutd/examples/quickstart/policy.yaml http://198.51.100.7/": "it needs a clone beside it",
}

// endsWith are the commands that end with another code than 0, and show nothing of it.
var endsWith = map[string]int{
	"go run ./cmd/calloutd sim --policy examples/conditions/policy.yaml --to 192.0.2.7:25 --app /usr/bin/mail":                codeNo,
	"go run ./cmd/calloutd sim --policy examples/conditions/policy.yaml --to 192.0.2.7:443 --uid 0":                           codeNo,
	"go run ./cmd/calloutd sim --policy examples/conditions/policy.yaml --inbound --from 203.0.113.9:40000 --to 192.0.2.1:22": codeNo,
	"go run ./cmd/calloutd sim --policy examples/allow-list/policy.yaml --to 192.0.2.70:80":                                   codeNo,
	"go run ./cmd/calloutd sim --policy examples/allow-list/policy.yaml --to 203.0.113.7:443":                                 codeNo,
	"go run ./cmd/calloutd sim --policy examples/allow-list/policy.yaml --to 198.51.100.7:80":                                 codeNo,
	"calloutd replay make.flight -p policy.yaml --with windows-firewall:rules.txt":                                            codeNo,
	"go run ./cmd/calloutd run --policy examples/allow-list/policy.yaml -- curl -s http://127.0.0.13:8000/":                   7, // curl's
}

// A workshop is a folder in which the commands of a document can be run: that of
// the repository, with files that they speak of.
func workshop(t *testing.T) string {
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, name := range []string{"cmd", "host", "sdk", "wsk", "go.mod", "go.sum"} {
		require.NoError(t, os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)))
	}
	for name, text := range map[string]string{
		"policy.yaml": "version: 1\nfilters: [{name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}]\n",
		"old.yaml":    "version: 1\n",
		"Makefile":    "all:\n\t@curl -s http://127.0.0.1:1/ || echo made\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	script(t, `cp "$1/policy.yaml" "$1/new.yaml"; cp "$2/host/policymodel/testdata/rules.txt" "$1"; cp -r "$2/examples" "$2/plugins" "$1"`, dir, root)
	return dir
}

// varies is what differs from run to run: processes, and ports that the system chose.
var varies = regexp.MustCompile(`\[\d+\]|127\.0\.0\.1:[3-6]\d{4}`)

// Every command of every document is run, or stands in a list with the reason. Those
// of the tutorial are TestTutorial's.
func TestCommandsInDocuments(t *testing.T) {
	for _, cond := range []string{"can:rust", "can:go", "tool:curl", "tool:clang", "tool:ip", "tool:make", "tool:nginx", "tool:haproxy"} {
		ok, err := can(t.Context(), cond, "")
		require.NoError(t, err)
		if !ok && os.Getenv("CI") == "" {
			t.Skip("it needs", cond)
		}
		require.True(t, ok, cond)
	}
	bin, err := plain()
	require.NoError(t, err)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	var done, used sync.Map
	t.Run("of", func(t *testing.T) {
		for file, text := range documents(t) {
			file := strings.TrimPrefix(filepath.ToSlash(file), "../../")
			all, stray := commandsOf(text)
			require.Empty(t, stray, "%s: what is no command belongs between ```", file)
			if len(all) == 0 {
				continue
			}
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				dir := workshop(t)
				if strings.Contains(text, " make.flight") {
					told{line: "calloutd run -p policy.yaml --record make.flight -- make"}.try(t, dir)
				}
				for _, c := range all {
					if notRunHere[c.line] != "" {
						used.Store(c.line, true)
						continue
					}
					if _, twice := done.LoadOrStore(c.line, true); !twice {
						c.try(t, dir)
					}
				}
			})
		}
	})
	for line := range notRunHere {
		_, ok := used.Load(line)
		require.True(t, ok, "no document has: %s", line)
	}
	for line := range endsWith {
		_, ok := done.Load(line)
		require.True(t, ok, "no document has: %s", line)
	}
}

// try runs a command, unless it is one that runs a test, or a program that has tests.
func (c told) try(t *testing.T, dir string) {
	line := strings.ReplaceAll(c.line, "go run ./cmd/calloutd ", "calloutd ")
	ci, err := os.ReadFile("../../.ci/run")
	require.NoError(t, err)
	switch m := goRunPkg.FindStringSubmatch(line); {
	case goTest.MatchString(line):
		findTests(t, line)
		return
	case m != nil:
		tests, err := filepath.Glob(filepath.Join("../..", m[1], "*_test.go"))
		require.NoError(t, err)
		require.NotEmpty(t, tests, "%s: nothing tests it", c.line)
		return
	case !slices.ContainsFunc(strings.Split(line, " && "), func(part string) bool { return !strings.Contains(string(ci), "\n"+part+"\n") }):
		return // A step of CI.
	case ownModule.MatchString(line):
		require.Contains(t, string(ci), ownModule.FindStringSubmatch(line)[1], "%s: CI does not test the module", c.line)
		return
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ip link set lo up && exec sh -c "$1"`, "sh", line)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	r := finish(t, cmd)
	got := varies.ReplaceAllString(r.stdout+r.stderr, "N")
	for _, want := range c.prints {
		assert.Contains(t, got, varies.ReplaceAllString(want, "N"), c.line)
	}
	if len(c.prints) == 0 {
		assert.Equal(t, endsWith[c.line], r.code, "%s: %s", c.line, got)
	}
}

// Every plugin's README has a command that enforces its policy.
func TestPluginsAreShownLive(t *testing.T) {
	for file, text := range documents(t) {
		if !strings.HasPrefix(filepath.ToSlash(file), "../../plugins/") || filepath.Base(filepath.Dir(file)) == "plugins" {
			continue
		}
		all, _ := commandsOf(text)
		require.True(t, slices.ContainsFunc(all, func(c told) bool { return strings.HasPrefix(c.line, "go run ./cmd/calloutd run ") }), file)
	}
}

// What the text calls a command, with its flags, is one.
func TestCommandsInSentences(t *testing.T) {
	found := 0
	for file, text := range documents(t) {
		for _, m := range inline.FindAllStringSubmatch(anyFence.ReplaceAllString(text, ""), -1) {
			words := strings.Fields(m[1])
			root := newRoot()
			cmd, _, err := root.Find(words[:1])
			require.NoError(t, err, "%s: %s", file, m[0])
			found++
			for _, w := range words[1:] {
				name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
				switch {
				case w == "--":
					goto next
				case strings.HasPrefix(w, "--"):
					require.NotNil(t, cmd.Flag(name), "%s: %s: %s", file, m[0], w)
				case strings.HasPrefix(w, "-") && len(w) == 2:
					require.NotNil(t, cmd.Flags().ShorthandLookup(name), "%s: %s: %s", file, m[0], w)
				}
			}
		next:
		}
	}
	require.Greater(t, found, 20)
}
