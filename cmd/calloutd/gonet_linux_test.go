package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// withoutRun are those that need what run refuses: raw sockets and MPTCP. They see
// that there is none and are skipped.
var withoutRun = []string{"TestIPConnLocalName", "TestIPConnRemoteName", "TestIPConnSpecificMethods", "TestMultiPathTCP"}

// Go's own tests of net and net/http end under run as they do without it, with a
// policy that permits all: the same pass, and the same are skipped.
func TestGosOwnTests(t *testing.T) {
	if os.Getenv("CI") == "" && os.Getenv("CALLOUTD_GO_TESTS") == "" {
		t.Skip("takes a minute or two: set CALLOUTD_GO_TESTS")
	}
	permitAll := policy(t, "version: 1\n")
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	for _, pkg := range []string{"net", "net/http"} {
		t.Run(pkg, func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), "tests")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", bin, pkg)
			msg, err := build.CombinedOutput()
			require.NoError(t, err, "%s", msg)
			run := func(names string, argv ...string) (outcomes map[string]string, text string) {
				cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], bin, "-test.short", "-test.v", "-test.timeout", "10m", "-test.run", names)...)
				cmd.Dir = filepath.Join(strings.TrimSpace(string(out)), "src", pkg)
				r := finish(t, cmd)
				return outcomesOf(r.stdout), r.stdout + r.stderr
			}
			names, text := ".", ""
			for try := range 3 { // Some depend on how busy the machine is: those that differ are asked again, alone.
				var plain, under map[string]string
				plain, _ = run(names, "env")
				under, text = run(names, "calloutd", "run", "--policy", permitAll, "--")
				if try == 0 {
					require.Greater(t, len(plain), 100)
				}
				if names = different(plain, under); names == "" {
					return
				}
			}
			t.Fatalf("%s end in another way under run:\n%s", names, text)
		})
	}
}

// different names those that end in another way, as a pattern; empty if none does.
func different(plain, under map[string]string) string {
	var names []string
	for name, outcome := range plain {
		if slices.Contains(withoutRun, name) && under[name] == "SKIP" {
			continue
		}
		if under[name] != outcome {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

var ended = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)

// outcomesOf says how the tests of a run ended. Their parts have names that
// differ from run to run.
func outcomesOf(text string) map[string]string {
	all := map[string]string{}
	for _, m := range ended.FindAllStringSubmatch(text, -1) {
		all[m[2]] = m[1]
	}
	return all
}
