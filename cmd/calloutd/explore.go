package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newExplore() *cobra.Command {
	var o exploreOptions
	cmd := &cobra.Command{
		Use:   "explore [POLICY|DIR...]",
		Short: "See connections travel through a policy, on a page in the browser",
		Long: `Explore serves a page on which you edit a connection and follow it, step by step, through
layers, sublayers, filters and callouts, to its record, to what the proxy asks Winsock
Kernel, and to the proxy's own connection. Nothing is connected: it shows what sim prints.

A folder stands for its policy.yaml; without a name it is that of this folder. The page
offers the connections of the cases that stand beside a policy, begins with one of them, and
follows changes of these files. Its address is printed; what it has after # is the
connection, to be shared. Only this system can reach it, unless --listen and --allow-remote
say otherwise. It ends when it is interrupted.`,
		Example: `  calloutd explore --open examples/forward
  calloutd explore --listen 127.0.0.1:8600 policy.yaml next.yaml`,
		ValidArgsFunction: policyFiles,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.explore(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "where the page is served, ADDR:PORT; port 0 is a free one")
	f.BoolVar(&o.remote, "allow-remote", false, "let --listen be an address that others can reach")
	o.beside.flag(cmd)
	f.BoolVar(&o.open, "open", false, "open the page in the browser")
	return cmd
}

type exploreOptions struct {
	listen       string
	remote, open bool
	beside       beside
}

func (o *exploreOptions) explore(cmd *cobra.Command, args []string) error {
	if err := explore.CheckListen(o.listen, o.remote); err != nil {
		return fmt.Errorf("--listen %w", err)
	}
	policies, err := policiesAt(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	l, err := net.Listen("tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("--listen: %w; port 0 is one that is free", err)
	}
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	x := &explorer{ctx: ctx, beside: &o.beside, files: hashes{}}
	x.server = explore.New(explore.Options{Policies: policies, Cases: exploredCases, Look: x.look, Problems: problems})
	if x.watcher, err = filewatch.New(filewatch.Options{}); err != nil {
		l.Close()
		return fmt.Errorf("the policies cannot be watched: %w", err)
	}
	address := "http://" + l.Addr().String() + x.server.Path()
	for _, p := range policies {
		x.learn(p)
		x.learn(casesBeside(p))
	}
	fmt.Fprintln(cmd.OutOrStdout(), address)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = x.watcher.Run(ctx) }) // It fails only if the system ends it: then nothing is followed.
	wg.Go(x.follow)
	if o.open {
		if err := browse(ctx, address, &wg); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "calloutd: --open:", err)
		}
	}
	return x.server.Serve(ctx, l)
}

// policiesAt are the policies that arguments stand for.
func policiesAt(args []string) ([]string, error) {
	if len(args) == 0 {
		args = []string{"."}
	}
	var out []string
	for _, arg := range args {
		arg, err := policyAt(arg)
		if err == nil {
			_, err = os.Stat(arg)
		}
		if err != nil {
			return nil, fmt.Errorf("there is no policy to explore: %w", err)
		}
		if !slices.Contains(out, arg) {
			out = append(out, arg)
		}
	}
	return out, nil
}

// policyAt is the policy that an argument stands for: of a folder its policy.yaml.
func policyAt(arg string) (string, error) {
	if info, err := os.Stat(arg); err != nil || !info.IsDir() {
		return arg, nil // Who opens it says what is wrong.
	}
	file := filepath.Join(arg, "policy.yaml")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return arg, fmt.Errorf("%s has no policy.yaml: expected a policy file, or a folder that has one", arg)
	}
	return file, nil
}

// onPolicy runs a command whose argument is a policy, without it that of this folder.
func onPolicy(run func(cmd *cobra.Command, policy string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		policy, err := policyAt(slices.Concat(args, []string{"."})[0])
		if err != nil {
			return err
		}
		return run(cmd, policy)
	}
}

// browse opens the browser that the system has for its user.
func browse(ctx context.Context, address string, wg *sync.WaitGroup) error {
	command := map[string][]string{"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"}}[runtime.GOOS]
	if command == nil {
		command = []string{"xdg-open"}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], address)...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("there is no browser to open, so open the address yourself: %w", err)
	}
	wg.Go(func() { _ = cmd.Wait() }) // It ends when it likes, and may say no.
	return nil
}

// An explorer opens a policy anew for each question, so that a callout answers as
// to the first connection, and remembers which files it is made of.
type explorer struct {
	ctx     context.Context // of the watch
	server  *explore.Server
	watcher *filewatch.Watcher
	beside  *beside

	mu    sync.Mutex
	files hashes // of all policies that were looked at
	more  bool   // files than are watched
}

// look is a question's answer: what sim --json --verbose prints.
func (x *explorer) look(ctx context.Context, q explore.Question) ([]json.RawMessage, error) {
	var out bytes.Buffer
	t := newTracer(&out, true, true)
	t.details = new(policytrace.Details)
	err := simulate(ctx, t, q, x.beside, x.learn)
	x.watch()
	var code exitCode
	if err != nil && !errors.As(err, &code) { // A block is an event as well.
		return nil, err
	}
	events := []json.RawMessage{}
	for line := range bytes.Lines(out.Bytes()) {
		events = append(events, json.RawMessage(line))
	}
	return events, nil
}

// learn notes a file that is about to be read.
func (x *explorer) learn(file string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := len(x.files)
	x.files.add(file)
	x.more = x.more || len(x.files) > n
}

// watch watches files that are not watched yet.
func (x *explorer) watch() {
	x.mu.Lock() // Until they are watched: a list with fewer must not come after.
	defer x.mu.Unlock()
	if x.more {
		x.watcher.Watch(x.ctx, slices.Collect(maps.Keys(x.files)))
	}
	x.more = false
}

// follow tells the pages when a file is another one.
func (x *explorer) follow() {
	for x.watch(); ; {
		select {
		case <-x.ctx.Done():
			return
		case <-x.watcher.Changed():
		}
		x.mu.Lock()
		now := hashesOf(maps.Keys(x.files))
		same := maps.Equal(x.files, now)
		x.files = now
		x.mu.Unlock()
		if !same {
			x.server.Changed()
		}
	}
}

// problems are the mistakes of a policy, each with its place if it has one.
func problems(err error) (out []json.RawMessage) {
	for _, err := range flatten(err) {
		p := policyfile.Problem{Message: err.Error()}
		_ = errors.As(err, &p) // What has no place keeps its words.
		b, err := json.Marshal(p)
		if err == nil {
			out = append(out, b)
		}
	}
	return out
}
