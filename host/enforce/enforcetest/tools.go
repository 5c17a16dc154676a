package enforcetest

import (
	"os"
	"os/exec"
	"testing"
)

// Lack skips a test for which something is missing, but not in CI, which has all.
func Lack(t testing.TB, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
}

// Tool returns where a tool is. A test without it is one that lacks something.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Lack(t, err)
	return path
}
