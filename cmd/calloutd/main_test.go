package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/tck/toolchain"
)

// The test binary is calloutd itself when it is called so, or a proxy that knows it.
func TestMain(m *testing.M) {
	guest.CompileChild()
	os.Setenv("GORACE", noRaceAtEnd)
	testscript.Main(tests{m}, map[string]func(){"calloutd": main, "remoteproxy": remoteProxy})
}

// tests have plain while they run.
type tests struct{ *testing.M }

func (m tests) Run() int {
	dir, err := os.MkdirTemp("", "calloutd-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	plain = sync.OnceValues(func() (string, error) {
		build := exec.Command("go", "build", "-trimpath", "-o", dir+string(filepath.Separator), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // CI has compiled it so.
		out, err := build.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return dir, nil
	})
	return m.M.Run()
}

// plain is a folder with the calloutd that people have. The test binary has the race
// detector, which makes it slow, most of all where it compiles a module.
var plain func() (string, error)

// oneByOne are the stories of what does one thing after the other, in which the race
// detector has nothing to find.
var oneByOne = regexp.MustCompile(`^script-(check|completion|fuzz|help|inspect|new|output|plugin|record|schema|sim|spec|test|version|why|with)(_|$)`)

// noRaceAtEnd keeps each calloutd of a test from waiting a second for races before it
// ends.
const noRaceAtEnd = "atexit_sleep_ms=0"

// Each file of testdata/script is one story. UPDATE=1 go test -run TestScript
// takes what came out for what is wanted.
func TestScript(t *testing.T) {
	warm(t)
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	goEnv, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPROXY").Output()
	require.NoError(t, err)
	dirs := strings.Split(string(goEnv), "\n")
	self, err := exec.LookPath("calloutd")
	require.NoError(t, err)
	bin, err := plain()
	require.NoError(t, err)
	modules, _ := toolchain.Modules(t, false)
	testscript.Run(t, testscript.Params{
		Condition:          func(cond string) (bool, error) { return can(t.Context(), cond, modules) },
		Dir:                "testdata/script",
		UpdateScripts:      os.Getenv("UPDATE") != "",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			if oneByOne.MatchString(filepath.Base(e.WorkDir)) {
				e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			}
			e.Setenv("GORACE", noRaceAtEnd)
			e.Setenv("CALLOUTD", self)
			e.Setenv("NODE_MODULES", modules)
			e.Setenv("ROOT", root)
			e.Setenv("GUESTS", filepath.Join(root, "host/guest/testdata"))
			e.Setenv("XDG_CACHE_HOME", cache)
			e.Setenv("GOCACHE", dirs[0])
			e.Setenv("GOMODCACHE", dirs[1])
			e.Setenv("GOPROXY", dirs[2])
			e.Setenv("CGO_ENABLED", "0") // CI has compiled it so.
			return nil
		},
	})
}

// What a script needs is not passed over in CI.
func TestScriptsAskForTools(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotRegexp(t, `(?m)^\[.*\bexec:`, string(text), "%s: write tool: in the place of exec:", file)
	}
}

// can answers can:LANGUAGE, whether its compiler is here, tool:NAME, and root. In CI
// they have to be; testscript's own exec:NAME would pass over what is missing there.
func can(ctx context.Context, cond, modules string) (bool, error) {
	kind, name, _ := strings.Cut(cond, ":")
	var err error
	switch l := project.ByName(name); {
	case cond == "root" && os.Geteuid() != 0:
		err = errors.New("this is not root")
	case cond == "root":
	case kind == "tool":
		_, err = exec.LookPath(name)
	case kind == "can" && l != nil:
		_, err = l.Find(ctx, filepath.Dir(modules))
	default:
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	if err != nil && os.Getenv("CI") == "" {
		return false, nil
	}
	return err == nil, err
}

// warm compiles the plugin once, before many would at a time: the compilation
// cache has it then.
func warm(t *testing.T) {
	t.Helper()
	warmed.Do(func() {
		bin, err := plain()
		require.NoError(t, err)
		r := finish(t, exec.CommandContext(t.Context(), filepath.Join(bin, "calloutd"), "check", quickstart))
		require.Zero(t, r.code, r.stderr)
	})
}

var warmed sync.Once

type result struct {
	stdout, stderr string
	code           int
}

func calloutd(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, exec.CommandContext(t.Context(), "calloutd", args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

const (
	quickstart = "../../examples/quickstart/policy.yaml"
	forward    = "../../examples/forward/policy.yaml"
)
