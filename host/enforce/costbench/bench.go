//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed c/*.c
var sources embed.FS

// A bench has the programs and the servers that the subjects share. All that it
// started ends with it.
type bench struct {
	ctx   context.Context
	dir   string
	root  string // of the module
	here  target // the server on this host
	undo  []func()
	names map[string]string // addresses that policies and configurations name
	// between are the programs that the subject which is being set up has between client
	// and server, by process number.
	between []int
}

// A target is where a client is sent: an address, and the ports for connections
// that end at once, for bytes and for pings.
type target struct {
	addr             string
	end, drain, echo int
}

// errAbsent is why a subject is left out.
var errAbsent = errors.New("left out")

func newBench(ctx context.Context) (_ *bench, err error) {
	b := &bench{ctx: ctx, names: map[string]string{}}
	if b.dir, err = os.MkdirTemp("", "costbench"); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func() { os.RemoveAll(b.dir) })
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := os.Chmod(b.dir, 0o755); err != nil { // nginx becomes another user.
		return nil, err
	}
	if err := b.build(); err != nil {
		return nil, err
	}
	b.here, err = b.server(nil)
	return b, err
}

func (b *bench) close() {
	for len(b.undo) > 0 {
		last := len(b.undo) - 1
		b.undo[last]()
		b.undo = b.undo[:last]
	}
}

// build makes the clients, the servers and calloutd.
func (b *bench) build() error {
	root, err := exec.CommandContext(b.ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/calloutd/calloutd").Output()
	if err != nil {
		return fmt.Errorf("run it in the module: %w", err)
	}
	b.root = strings.TrimSpace(string(root))
	if err := os.CopyFS(b.dir, sources); err != nil {
		return err
	}
	for _, name := range []string{"client", "server", "notify", "trace"} {
		if err := b.sh("cc", "-O2", "-pthread", "-o", b.exe(name), filepath.Join(b.dir, "c", name+".c")); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", b.dir, "./cmd/calloutd", "./host/enforce/costbench/relay")
	cmd.Dir = b.root
	return output(cmd)
}

func (b *bench) exe(name string) string { return filepath.Join(b.dir, name) }

// sh runs a command to its end.
func (b *bench) sh(argv ...string) error {
	return output(exec.CommandContext(b.ctx, argv[0], argv[1:]...))
}

func output(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// start starts a command that ends with the bench. It returns what it says on its
// standard output or, with told, on its standard error.
func (b *bench) start(argv []string, attr *syscall.SysProcAttr, told bool) (io.Reader, *os.Process, error) {
	ctx, stop := context.WithCancel(b.ctx)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // So that it takes away what it made, and its workers.
	cmd.WaitDelay = 10 * time.Second
	r, w, err := os.Pipe()
	if err != nil {
		stop()
		return nil, nil, err
	}
	cmd.Stdout = w
	if told {
		cmd.Stdout, cmd.Stderr = nil, w
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		stop()
		r.Close()
		return nil, nil, err
	}
	b.undo = append(b.undo, func() {
		stop()
		r.Close()
		_ = cmd.Wait()
	})
	return r, cmd.Process, nil
}

// server starts a server; prefix is a command that runs it somewhere else.
func (b *bench) server(prefix []string) (t target, err error) {
	out, _, err := b.start(append(prefix, b.exe("server")), nil, false)
	if err != nil {
		return t, err
	}
	t.addr = "127.0.0.1"
	_, err = fmt.Fscanln(out, &t.end, &t.drain, &t.echo)
	return t, err
}

// daemon starts calloutd and waits until it says that the policy is in force.
func (b *bench) daemon(argv []string, says string) error {
	said, p, err := b.start(argv, nil, true)
	if err != nil {
		return err
	}
	b.between = append(b.between, p.Pid)
	var all bytes.Buffer
	for s := bufio.NewScanner(io.TeeReader(said, &all)); s.Scan(); {
		if strings.Contains(s.Text(), says) {
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return nil
		}
	}
	return fmt.Errorf("%v: %s", argv, all.String())
}

// listening waits for a server that tells nobody that it is there.
func (b *bench) listening(addr string) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Since(began) > 30*time.Second || b.ctx.Err() != nil {
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		}
	}
}

// file writes a file of the bench, once; %NAME% in it is what the bench knows by it.
func (b *bench) file(name, text string) (string, error) {
	path := filepath.Join(b.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil // Somebody may be reading it.
	}
	for k, v := range b.names {
		text = strings.ReplaceAll(text, "%"+k+"%", v)
	}
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// tool is errAbsent where a program is not installed.
func tool(name, debian string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%w: %s is not installed (Debian: %s)", errAbsent, name, debian)
	}
	return nil
}

func root() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", errAbsent)
	}
	return nil
}

// freePort is a port that was free just now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
