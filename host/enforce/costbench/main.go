//go:build linux

// Command costbench measures what enforcement costs a client that connects and
// transfers: each backend of calloutd, the least that its mechanism can cost, and
// other programs that redirect, all against plain connections and in turn.
//
//	go run ./host/enforce/costbench [--json] [--rounds N] [--quick] [--only TEXT]
//
// What needs root or a program that is not there is left out, and it says so.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "costbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	asJSON := flag.Bool("json", false, "print JSON")
	rounds := flag.Int("rounds", 5, "how many rounds; what is printed is the median")
	quick := flag.Bool("quick", false, "measure little: to see that all works")
	only := flag.String("only", "", "measure only plain connections and what has this in its name")
	flag.Parse()
	if flag.NArg() > 0 || *rounds <= 0 {
		flag.Usage()
		return fmt.Errorf("--rounds must be positive, and there are no arguments")
	}
	size := full
	if *quick {
		size = little
	}
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	var chosen []subject
	for _, s := range subjects {
		if s.plain() || strings.Contains(s.name, *only) {
			chosen = append(chosen, s)
		}
	}
	r, err := b.measure(chosen, size, *rounds, os.Stderr)
	if err != nil {
		return err
	}
	if *asJSON {
		return r.json(os.Stdout)
	}
	return r.table(os.Stdout)
}
