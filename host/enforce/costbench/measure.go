//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// A size is how much is measured in a round.
type size struct {
	connects  int // of one client
	clients   int // that connect at once
	each      int // connects of each of them
	mebibytes int
	pings     int
}

var (
	full   = size{connects: 1000, clients: 64, each: 150, mebibytes: 1024, pings: 3000}
	little = size{connects: 50, clients: 8, each: 10, mebibytes: 16, pings: 50}
)

// A client is a subject's, and what was measured of it in each round.
type client struct {
	subject
	to  target
	in  io.WriteCloser
	out *bufio.Reader
	// between are the programs between client and server, by process number.
	between []int
	by      map[metric][]float64
}

// A metric is one thing that is measured.
type metric string

const (
	connectTime metric = "connect" // µs, of one client
	oneRate     metric = "rate"    // connections a second, of one client
	manyRate    metric = "rate many"
	throughput  metric = "bytes"    // MB/s
	pingTime    metric = "pingpong" // µs
	// processorTime is that of the programs between client and server for a connection
	// of many clients.
	processorTime metric = "processor" // µs
)

// client starts the client of a subject.
func (b *bench) client(s subject) (*client, error) {
	b.between = nil
	prefix, to, attr, err := s.setup(b)
	if err != nil {
		return nil, err
	}
	argv := append(slices.Clone(prefix), b.exe("client"))
	cmd := exec.CommandContext(b.ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func() { in.Close(); _ = cmd.Wait() }) // It ends with its input.
	between := b.between
	if len(prefix) > 0 && filepath.Dir(prefix[0]) == b.dir { // It is what supervises the client.
		between = append(between, cmd.Process.Pid)
	}
	return &client{subject: s, to: to, in: in, out: bufio.NewReader(out), between: between, by: map[metric][]float64{}}, nil
}

// ask has the client measure, and reads as many numbers as there are results.
func (c *client) ask(what string, port int, how string, results ...any) error {
	fmt.Fprintf(c.in, "%s %s %d %s\n", what, c.to.addr, port, how)
	if _, err := fmt.Fscanln(c.out, results...); err != nil {
		return fmt.Errorf("%s: %s: the client has ended: %w", c.name, what, err)
	}
	return nil
}

func (c *client) round(z size) error {
	var p50, p99, rate, many, bytes, ping float64
	if err := c.ask("connect", c.to.end, fmt.Sprintf("1 %d", z.connects), &p50, &p99, &rate); err != nil {
		return err
	}
	used, err := processor(c.between)
	if err != nil {
		return err
	}
	if err := c.ask("connect", c.to.end, fmt.Sprintf("%d %d", z.clients, z.each), new(float64), &p99, &many); err != nil {
		return err
	}
	if len(c.between) > 0 {
		after, err := processor(c.between)
		if err != nil {
			return err
		}
		c.add(processorTime, (after-used)/float64(z.clients*z.each))
	}
	c.add(connectTime, p50/1e3)
	c.add(oneRate, rate)
	c.add(manyRate, many)
	if !c.data {
		return nil
	}
	if err := c.ask("bytes", c.to.drain, fmt.Sprint(z.mebibytes), &bytes); err != nil {
		return err
	}
	if err := c.ask("pingpong", c.to.echo, fmt.Sprint(z.pings), &ping); err != nil {
		return err
	}
	c.add(throughput, bytes/1e6)
	c.add(pingTime, ping/1e3)
	return nil
}

// processor is the processor time that processes have used, in µs.
func processor(pids []int) (sum float64, err error) {
	for _, pid := range pids {
		const schedule = 2 // CPUCLOCK_SCHED: the clock of a process, clock_getcpuclockid(3)
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|schedule), &t); err != nil {
			return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
		}
		sum += float64(t.Nano()) / 1e3
	}
	return sum, nil
}

func (c *client) add(m metric, v float64) { c.by[m] = append(c.by[m], v) }

// measure measures the subjects in turn, round after round, so that what else
// goes on hits all alike. The first round counts for nothing.
func (b *bench) measure(chosen []subject, z size, rounds int, told io.Writer) (*report, error) {
	r := &report{Processors: runtime.NumCPU(), Rounds: rounds, Clients: z.clients, Absent: map[string]string{}}
	var clients []*client
	for _, s := range chosen {
		c, err := b.client(s)
		if errors.Is(err, errAbsent) {
			r.Absent[s.name] = err.Error()
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		clients = append(clients, c)
	}
	for n := range rounds + 1 {
		fmt.Fprintf(told, "\rround %d of %d", n, rounds)
		for _, c := range clients {
			if err := c.round(z); err != nil {
				return nil, err
			}
			if n == 0 {
				clear(c.by)
			}
		}
	}
	fmt.Fprintln(told)
	r.fill(clients)
	return r, nil
}
