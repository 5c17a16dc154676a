package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policytrace"
)

// An account is what is written down of all decisions, when somebody wants it:
// each as it is made, and who connected where at the end.
type account struct {
	events  string
	summary bool
}

func (a *account) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&a.summary, "summary", false, "print at the end who connected where, and what was blocked and why")
	f.StringVar(&a.events, "events", "", "write every decision to this file, one JSON object a line (-: standard output)")
	_ = cmd.MarkFlagFilename("events") // fails only for a flag that does not exist
}

// wanted reports whether anything is.
func (a *account) wanted() bool { return a.summary || a.events != "" }

// open has a tracer write the account. The function ends it: out prints the summary.
func (a *account) open(t, out *tracer) (end func(), err error) {
	closeLog := func() {}
	if a.events != "" {
		if t.log, closeLog, err = openEvents(a.events); err != nil {
			return nil, err
		}
		t.log.OnWrite = func(err error) { // Printed only: the log has no room for it.
			e, text := policytrace.Logged("--events: %s can be written again", a.events)
			if err != nil {
				e, text = policytrace.Logged("--events: lines are missing: %v", err)
			}
			t.print(e, signed(text))
		}
	}
	if a.summary {
		t.sum = &summary{own: uint32(os.Getpid())}
	}
	return func() {
		if a.summary {
			t.sum.print(out)
		}
		if err := t.log.Err(); err != nil { // The command's code is worth more.
			complain(os.Stderr, fmt.Errorf("--events: %w", err))
		}
		closeLog()
	}, nil
}

// openEvents opens the file of --events; "-" is standard output.
func openEvents(file string) (*policytrace.Log, func(), error) {
	if file == "-" {
		return policytrace.NewLog(os.Stdout), func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, nil, fmt.Errorf("--events: %w", err)
	}
	return policytrace.NewLog(f), func() { f.Close() }, nil
}
