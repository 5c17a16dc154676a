// Command agent is a security agent: it runs a command whose connections a policy
// decides, takes another policy while the command runs, refuses one that is wrong
// and keeps the one before, and streams what is decided as lines of JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/seccomp"
	"github.com/calloutd/calloutd/host/guest"
)

func main() {
	guest.CompileChild()
	policy := flag.String("policy", "", "the first policy (required)")
	socket := flag.String("socket", "agent.sock", "where policies come in and decisions go out")
	flag.Parse()
	if *policy == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: agent -policy FILE [-socket FILE] -- COMMAND [ARGS...]")
		os.Exit(2)
	}
	cmd := exec.Command(flag.Arg(0), flag.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := run(context.Background(), *policy, *socket, cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run keeps a policy in force until the command ends.
func run(ctx context.Context, policy, socket string, cmd *exec.Cmd) error {
	a := newAgent()
	defer a.runner.Close()
	if err := a.runner.Load(ctx, policy); err != nil {
		return err
	}
	l, err := listen(socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a.handler()}
	go server.Serve(l)
	defer stop(server, a)
	state, err := seccomp.Run(ctx, seccomp.Options{ALE: a.runner.Enforcer(), OnBlocked: a.blocked}, cmd)
	if err != nil {
		return err
	}
	if !state.Success() {
		return fmt.Errorf("%s: %s", cmd.Path, state)
	}
	return nil
}

// stop lets the streams come to their end. Who does not read his is no reason to stay.
func stop(server *http.Server, a *agent) {
	a.stream.end()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

// listen makes a socket for this user only, and takes the place of one that an
// agent left that died.
func listen(socket string) (net.Listener, error) {
	if c, err := net.Dial("unix", socket); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another agent listens there", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// blocked streams a denial: the policy's, or that of whoever enforces it.
func (a *agent) blocked(d enforce.Denial) {
	var b *ale.BlockedError
	e, _ := a.reader().Denied(d.AppID, d.PID, d.Remote, d.Err)
	if errors.As(d.Err, &b) {
		e, _ = a.reader().Blocked(b, d.Local)
	}
	a.stream.send(e)
}
