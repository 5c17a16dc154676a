// Command peerbench makes the same decision on the same connections in many
// ways and prints what each takes: a closure in Go, callouts of this project,
// and what else there is to run somebody else's policy in a Go process.
//
//	go run . [--json] [--time D] [--rounds N] [--only TEXT] [--profile FILE]
//
// It is a module of its own, so that who uses the project does not download its
// peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"
)

func main() {
	// A context with values or an end costs some hosts time in every call.
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "peerbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	asJSON := flag.Bool("json", false, "print JSON")
	var o options
	flag.DurationVar(&o.batch, "time", 20*time.Millisecond, "how long to measure a variant in each round")
	flag.IntVar(&o.rounds, "rounds", 25, "how many rounds; the least of them is ns")
	only := flag.String("only", "", "measure only the closure and variants that have this in their name and a $ after it")
	profile := flag.String("profile", "", "write a profile of the processor here, which go build -pgo takes")
	flag.Parse()
	if flag.NArg() > 0 || o.batch <= 0 || o.rounds <= 0 {
		flag.Usage()
		return fmt.Errorf("--time and --rounds must be positive, and there are no arguments")
	}
	var chosen []variant
	for _, v := range variants() {
		if v.name == nativeName || strings.Contains(v.name+"$", *only) {
			chosen = append(chosen, v)
		}
	}
	stop, err := profiling(*profile)
	if err != nil {
		return err
	}
	report, err := measure(ctx, chosen, o)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	if *asJSON {
		return report.json(os.Stdout)
	}
	return report.table(os.Stdout)
}

// profiling writes a profile until it is stopped, if there is a file for it.
func profiling(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
