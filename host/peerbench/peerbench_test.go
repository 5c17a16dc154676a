package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// What is compared decides the same, to the byte of the record.
func TestVariantsDecideLikeTheClosure(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			r, err := start(t.Context(), v)
			require.NoError(t, err)
			r.close()
		})
	}
}

// A variant that decides otherwise is not measured.
func TestADifferentVerdictIsAnError(t *testing.T) {
	for name, wrong := range map[string]func(v *fwps.Verdict){
		"a block":              func(v *fwps.Verdict) { v.Action, v.Redirect = fwp.ActionBlock, false },
		"no redirect":          func(v *fwps.Verdict) { v.Redirect = false },
		"another process":      func(v *fwps.Verdict) { v.TargetPID++ },
		"a byte of the record": func(v *fwps.Verdict) { v.Record = append([]byte{1}, v.Record...) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := startNative(t.Context())
			require.NoError(t, err)
			decide := s.decide
			s.decide = func(c *fwps.Call, v *fwps.Verdict) error {
				err := decide(c, v)
				if v.Redirect {
					wrong(v)
				}
				return err
			}
			require.ErrorContains(t, s.check(t.Context()), "connection 0 to 93.184.216.34:443 of /usr/bin/curl: got")
		})
	}
}

func TestReport(t *testing.T) {
	r, err := measure(t.Context(), append(floors, peers[0]), options{batch: time.Microsecond, rounds: 1})
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, r.json(&b))
	var back report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, *r, back)
	require.Equal(t, 1.0, back.Rows[0].Ratio)
	require.Positive(t, back.Rows[2].Ns)
	b.Reset()
	require.NoError(t, r.table(&b))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 5)
	for _, l := range lines {
		require.Len(t, l, len(lines[0]), "columns are aligned")
	}
	require.Contains(t, lines[4], peers[0].name)
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.04: "0", 0.26: "0.3", 9.94: "9.9", 10.4: "10", 999.6: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, number(x))
	}
}

func TestMalformedAnswers(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {2}, make([]byte, answerSize), append([]byte{1}, make([]byte, answerSize)...)} {
		require.ErrorIs(t, readAnswer(b, new(fwps.Verdict)), errAnswer, "%x", b)
	}
}

const clang = "--target=wasm32 -O3 -Wall -Wextra -Werror -nostdlib -mbulk-memory -msimd128 -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=65536 -Wl,--strip-all -o OUT "

// commands build the guests that are committed.
var commands = map[string]string{
	"wapc":     "clang -std=c11 " + clang + "wapc.c",
	"extism":   "clang -std=c11 " + clang + "extism.c",
	"httpwasm": "clang -std=c11 " + clang + "httpwasm.c",
	"split":    "clang++ -std=c++17 -fno-exceptions -fno-rtti -I../../../../sdk/c " + clang + "-Wno-missing-field-initializers split.cc",
}

// TestCommitted builds every guest in C and compares it with what is committed.
func TestCommitted(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "clang", "--version").Output()
	if err != nil || !strings.Contains(string(version), "clang version 14") {
		if os.Getenv("CI") != "" {
			t.Fatal("clang 14 is not installed (packages clang, lld)")
		}
		t.Skip("clang 14 is not installed (packages clang, lld)")
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.wasm")
			words := strings.Fields(strings.ReplaceAll(command, "OUT", out))
			cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
			cmd.Dir = filepath.Join("guests", "c")
			msg, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", msg)
			built, err := os.ReadFile(out)
			require.NoError(t, err)
			committed, err := os.ReadFile(filepath.Join("guests", "c", name+".wasm"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(built, committed), "%s.wasm is not what its source makes; in guests/c: %s", name, strings.ReplaceAll(command, "OUT", name+".wasm"))
		})
	}
}
