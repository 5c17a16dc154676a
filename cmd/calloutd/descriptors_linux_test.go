package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// crowd connects more often than calloutd has descriptors for, says how many were carried, and
// at a line of its standard input that the first one still is; lets all go, and connects again.
const crowd = `
import socket, sys
at = (sys.argv[1], int(sys.argv[2]))
def connect(patience=5):
    s = socket.socket()
    s.settimeout(patience)
    s.connect(at)
    carried(s)
    return s
def carried(s):
    s.sendall(b'x')
    if s.recv(1) != b'x': raise OSError('it ends')
first, held, refused = connect(60), [], 0
for i in range(100):
    try: held.append(connect())
    except OSError: refused += 1
    if refused == 5: break
print(len(held), flush=True)
sys.stdin.readline()
carried(first)
print('carried', flush=True)
first.close()
for s in held: s.close()
while True:
    try: connect(); break
    except OSError: pass
print('again', flush=True)
sys.stdin.readline()
`

// A calloutd that runs out of descriptors refuses what is new, says why, carries what it carries,
// leaves the processor to others, and works as before when there are some again.
func TestAttachRunsOutOfDescriptors(t *testing.T) {
	need(t, "python3")
	cgroup, in := newCgroup(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte("version: 1\nfilters:\n  - {name: none, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: ALE_APP_ID, value: /no/such/program}]}\n"), 0o600))
	daemon := exec.CommandContext(t.Context(), "calloutd", "attach", "--policy", policy, "--cgroup", cgroup)
	stderr, err := daemon.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	lines := bufio.NewReader(stderr)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "attached to")
	said := make(chan string, 1)
	go func() { all, _ := io.ReadAll(lines); said <- string(all) }()

	const more = 16
	held := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", daemon.Process.Pid))
		require.NoError(t, err)
		return len(all)
	}
	before := held()
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(daemon.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit))
	permit := func(descriptors int) {
		require.NoError(t, unix.Prlimit(daemon.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(descriptors), Max: limit.Max}, nil))
	}
	permit(before + more)

	at := l.Addr().(*net.TCPAddr)
	client := exec.CommandContext(t.Context(), "python3", "-c", crowd, at.IP.String(), fmt.Sprint(at.Port))
	client.SysProcAttr, client.Stderr = in, os.Stderr
	stdin, err := client.StdinPipe()
	require.NoError(t, err)
	stdout, err := client.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, client.Start())
	heard := bufio.NewScanner(stdout)
	hears := func() string { require.True(t, heard.Scan(), "it has ended"); return heard.Text() }
	var carried int
	_, err = fmt.Sscan(hears(), &carried)
	require.NoError(t, err)
	require.Positive(t, carried)
	require.Less(t, carried, more/2+1)

	permit(0) // What comes now cannot even be accepted, and waits.
	late := exec.CommandContext(t.Context(), "python3", "-c", "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.sendall(b'x'); print(s.recv(1))", at.IP.String(), fmt.Sprint(at.Port))
	late.SysProcAttr, late.Stderr = in, os.Stderr
	lateHears, err := late.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, late.Start())
	const look = 2 * time.Second
	require.Eventually(t, func() bool { // It may do yet what came before.
		used := processorTime(t, daemon.Process.Pid)
		time.Sleep(look)
		return processorTime(t, daemon.Process.Pid)-used < look/10
	}, time.Minute, time.Millisecond, "it takes the processor")
	permit(before + 2*more)
	b, err := io.ReadAll(lateHears)
	require.NoError(t, err)
	require.Equal(t, "b'x'\n", string(b))
	require.NoError(t, late.Wait())
	_, err = io.WriteString(stdin, "\n")
	require.NoError(t, err)
	require.Equal(t, "carried", hears())
	require.Equal(t, "again", hears())
	require.NoError(t, stdin.Close())
	require.NoError(t, client.Wait())
	require.Eventually(t, func() bool { return held() <= before }, time.Minute, 10*time.Millisecond, "descriptors are left")
	require.NoError(t, daemon.Process.Signal(os.Interrupt))
	all := <-said
	require.NoError(t, daemon.Wait())
	require.Contains(t, all, "too many open files")
}

// processorTime is what a process took of the processors.
func processorTime(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system time.Duration
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	require.NoError(t, err)
	return (user + system) * 10 * time.Millisecond // USER_HZ
}
