package remote_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/remote"
)

// The test binary is another program when it is called so: it asks for the records
// of the socket that is its descriptor 3.
func init() {
	path := os.Getenv("CALLOUTD_CHILD")
	if path == "" {
		return
	}
	fmt.Println(ask(path))
	os.Exit(0)
}

func ask(path string) error {
	c, err := remote.Dial(context.Background(), path)
	if err != nil {
		return err
	}
	defer c.Close()
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	_, err = c.RedirectRecords(context.Background(), conn.(*net.TCPConn))
	return err
}

func child(t *testing.T, path string, conn *net.TCPConn) string {
	f, err := conn.File()
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CALLOUTD_CHILD="+path)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}
