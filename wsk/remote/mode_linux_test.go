package remote

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The umask is a process's: the test binary is another program when it is called so.
func init() {
	path := os.Getenv("CALLOUTD_UMASK")
	if path == "" {
		return
	}
	unix.Umask(0)
	l, err := listen("unixpacket", path, 0o600)
	if err != nil {
		panic(err)
	}
	info, err := os.Stat(path)
	fmt.Println(info.Mode().Perm(), err)
	l.Close()
	os.Exit(0)
}

// There is no moment in which somebody else may connect, whatever the umask is.
func TestListenHasItsModeFromTheBeginning(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CALLOUTD_UMASK="+t.TempDir()+"/s")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "-rw------- <nil>\n", string(out))
}
