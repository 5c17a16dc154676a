package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every command compiles what is not in the cache in another process, which ends with it.
func TestModulesAreCompiledApart(t *testing.T) {
	p := policy(t, "version: 1\ncallouts: [{id: c, wasm: module.wasm, config: {rules: []}}]\n")
	module, cases := filepath.Join(filepath.Dir(p), "module.wasm"), filepath.Join(filepath.Dir(p), "policy_test.yaml")
	wasm, err := os.ReadFile("../../plugins/proxy-redirect/proxy-redirect.wasm") // without its source, which test would build
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(module, wasm, 0o600))
	require.NoError(t, os.WriteFile(cases, []byte("version: 1\npolicy: policy.yaml\ncases: [{name: a, to: \"192.0.2.1:1\", expect: {action: permit}}]\n"), 0o600))
	for _, args := range [][]string{
		{"inspect", module},
		{"check", p},
		{"test", cases},
		{"test", "--lcov", filepath.Join(filepath.Dir(p), "lcov"), cases},
		{"sim", "--policy", p, "--to", "192.0.2.1:1"},
		{"why", "--policy", p, "192.0.2.1:1"},
		{"bench", p},
		{"run", "--policy", p, "--", "true"},
	} {
		t.Run(strings.Join(args[:1], " "), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "calloutd", args...)
			cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			require.NoError(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			var child string
			for child == "" {
				select {
				case err := <-ended:
					t.Fatalf("it ended first: %v\n%s", err, out.String())
				case <-time.After(time.Millisecond):
				}
				lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
				for _, list := range lists {
					of, _ := os.ReadFile(list)
					for _, c := range strings.Fields(string(of)) {
						if name, _ := os.ReadFile("/proc/" + c + "/comm"); string(name) == "exe\n" { // of /proc/self/exe
							child = c
						}
					}
				}
			}
			require.NoError(t, cmd.Process.Kill())
			<-ended
			require.Eventually(t, func() bool {
				stat, err := os.ReadFile("/proc/" + child + "/stat")
				return err != nil || strings.Contains(string(stat), ") Z ")
			}, time.Minute, 10*time.Millisecond)
		})
	}
}
