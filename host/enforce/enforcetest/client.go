package enforcetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const clientEnv = "CALLOUTD_ENFORCETEST"

// A connection is a testCase as the client gets it.
type connection struct{ Network, How, To string }

// Client makes the connections, and does not return, when Run has started this
// program for that.
func Client() {
	list := os.Getenv(clientEnv)
	if list == "" {
		return
	}
	var connections []connection
	if err := json.Unmarshal([]byte(list), &connections); err != nil {
		panic(err)
	}
	results := make([]string, len(connections))
	for i, c := range connections {
		results[i] = c.make()
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// client runs the client and returns what became of each connection.
func client(t *testing.T, list []testCase, run func(*exec.Cmd) error) []string {
	var connections []connection
	for _, c := range list {
		connections = append(connections, connection{c.network, c.how, c.to.String()})
	}
	text, err := json.Marshal(connections)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientEnv+"="+string(text))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	require.NoError(t, run(cmd))
	var results []string
	require.NoError(t, json.Unmarshal(out.Bytes(), &results), out.String())
	require.Len(t, results, len(list))
	return results
}

// make makes the connection and says who answered, or why nobody did.
func (c connection) make() string {
	var answer []byte
	var err error
	if c.How == "send" {
		answer, err = c.send()
	} else {
		answer, err = c.connect()
	}
	var errno syscall.Errno
	switch {
	case err == nil:
		return string(answer)
	case errors.Is(err, syscall.EACCES):
		return blocked
	case errors.As(err, &errno):
		return "reset: " + errno.Error()
	}
	return err.Error()
}

func (c connection) connect() ([]byte, error) {
	conn, err := net.Dial(c.Network, c.To)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if !strings.HasPrefix(c.Network, "udp") {
		return io.ReadAll(conn)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return nil, err
	}
	b := make([]byte, 64)
	n, err := conn.Read(b)
	return b[:n], err
}

func (c connection) send() ([]byte, error) {
	to, err := net.ResolveUDPAddr(c.Network, c.To)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP(c.Network, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.WriteTo([]byte("x"), to); err != nil {
		return nil, err
	}
	b := make([]byte, 64)
	n, _, err := conn.ReadFrom(b)
	return b[:n], err
}
