package winsock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of this package as a Windows program, where Wine is installed: the
// real WSAIoctl of a system without WFP, and its errors.
func TestOnWindows(t *testing.T) {
	wine, err := exec.LookPath("wine")
	if err != nil {
		t.Skip("Wine is not installed")
	}
	if testing.Short() {
		t.Skip("it builds a Windows program")
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "winsock.test.exe")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "GOOS=windows", "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	prefix, err := os.MkdirTemp("", "winsock-wine-")
	require.NoError(t, err)
	env := append(os.Environ(), "WINEPREFIX="+prefix, "WINEDEBUG=-all")
	t.Cleanup(func() {
		end := exec.Command("/usr/lib/wine/wineserver", "-k") // Of this prefix only.
		end.Env = env
		_ = end.Run()
		os.RemoveAll(prefix)
	})
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), wine, args...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput() // What it printed says how it ended.
		return string(out)
	}
	run("wineboot", "-i")
	random(t, prefix)
	got := run(exe, "-test.v")
	if strings.Contains(got, "bcryptprimitives.dll not found") {
		t.Skip("this Wine is too old for Go programs, and there is no compiler to help it")
	}
	require.Contains(t, got, "--- PASS: TestSystemErrors")
	require.Contains(t, got, "--- PASS: TestProxyWrittenForWindows")
	require.NotContains(t, got, "--- FAIL")
}

// random gives a Wine that lacks it the library that Go takes randomness from.
func random(t *testing.T, prefix string) {
	dll := filepath.Join(prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll")
	gcc, err := exec.LookPath("x86_64-w64-mingw32-gcc")
	if _, there := os.Stat(dll); there == nil || err != nil {
		return
	}
	src := filepath.Join(t.TempDir(), "random.c")
	require.NoError(t, os.WriteFile(src, []byte(`#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE b, SIZE_T n) { return SystemFunction036(b, (ULONG)n); }
`), 0o600))
	out, err := exec.CommandContext(t.Context(), gcc, "-shared", "-o", dll, src, "-ladvapi32").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
