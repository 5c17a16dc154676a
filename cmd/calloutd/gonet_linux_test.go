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
			run := func(argv ...string) (outcomes map[string]string, code int, text string) {
				cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], bin, "-test.short", "-test.v", "-test.timeout", "10m")...)
				cmd.Dir = filepath.Join(strings.TrimSpace(string(out)), "src", pkg)
				r := finish(t, cmd)
				return outcomesOf(r.stdout), r.code, r.stdout + r.stderr
			}
			plain, plainCode, _ := run("env")
			under, code, text := run("calloutd", "run", "--policy", permitAll, "--")
			for name, outcome := range plain {
				if slices.Contains(withoutRun, name) {
					outcome = under[name]
					require.NotEqual(t, "FAIL", outcome, name)
				}
				if under[name] != outcome {
					t.Errorf("%s: %s, and under run %s", name, outcome, under[name])
				}
			}
			require.Equal(t, plainCode, code, text)
			require.Greater(t, len(plain), 100)
			require.Len(t, under, len(plain))
		})
	}
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
