package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/importer"
	"github.com/calloutd/calloutd/host/policyfile"
)

func newRecord() *cobra.Command {
	var o recordOptions
	var formats, names []string
	for _, f := range importer.Formats {
		formats = append(formats, fmt.Sprintf("  %-10s %s", f.Name, f.What))
		names = append(names, f.Name)
	}
	cmd := &cobra.Command{
		Use:   "record --from FORMAT --out FILE [INPUT]",
		Short: "Make a flight file of connections that other programs saw",
		Long: `Record reads connections that another program wrote down and appends them to a flight
file, which replay and diff read. Run, attach and gateway write such files of what a policy
decided, with --record. The formats are

` + strings.Join(formats, "\n"),
		Example: `  strace -f -e trace=network,process -o make.strace make
  calloutd record --from strace --out make.flight make.strace
  conntrack -L | calloutd record --from conntrack --out now.flight`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.record(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "what the input is (required)")
	f.StringVarP(&o.out, "out", "o", "", "flight file to append to (required)")
	f.StringSliceVar(&o.mask, "mask", nil, maskUsage)
	completeFlag(cmd, "mask", flight.Masks...)
	f.Int64Var(&o.uid, "uid", -1, "number of the user where the input does not say it; -1: not known")
	f.StringVar(&o.app, "app", "", "path of the program where the input does not say it")
	completeFlag(cmd, "from", names...)
	// These fail only for a flag that does not exist.
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

type recordOptions struct {
	from, out, app string
	mask           []string
	uid            int64
}

func (o *recordOptions) record(cmd *cobra.Command, args []string) error {
	format, err := o.format()
	if err != nil {
		return err
	}
	if o.out == "-" {
		return errors.New("--out -: expected a file: a flight file is appended to")
	}
	mask, err := flight.ParseMask(o.mask)
	if err != nil {
		return fmt.Errorf("--mask: %w", err)
	}
	name, in := "standard input", os.Stdin
	if len(args) > 0 && args[0] != "-" {
		if in, err = openInput(args[0]); err != nil {
			return err
		}
		defer in.Close()
		name = args[0]
	}
	w, err := flight.Append(o.out, flight.Header{Source: format.Name, Masked: mask})
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	n := 0
	err = format.Read(in, func(e *flight.Entry) error {
		n++
		return w.Write(o.complete(e))
	})
	cut := errors.Is(err, importer.ErrCutOff)
	if cut {
		err = nil
	}
	switch lost := w.Close(); {
	case lost != nil:
		return lost
	case err != nil && n > 0:
		return errors.Join(placed(name, err), fmt.Errorf("%s: it has what came before that, %s", o.out, connections(n)))
	case err != nil:
		return placed(name, err)
	case cut:
		fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s: %v: what there is was read\n", name, importer.ErrCutOff)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s recorded\n", connections(n))
	return nil
}

// openInput opens what may be a file or a pipe; a folder cannot be read.
func openInput(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder: expected a file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (o *recordOptions) format() (importer.Format, error) {
	var names []string
	for _, f := range importer.Formats {
		if f.Name == o.from {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return importer.Format{}, fmt.Errorf("--from %q: expected one of %s", o.from, strings.Join(names, ", "))
}

// complete adds what the input does not say.
func (o *recordOptions) complete(e *flight.Entry) *flight.Entry {
	if e.Program == "" {
		e.Program = o.app
	}
	if !e.UserKnown && o.uid >= 0 {
		e.User, e.UserKnown = uint32(o.uid), true
	}
	return e
}

// placed gives the importer's mistakes the form of all others.
func placed(file string, err error) error {
	var at *importer.Error
	switch {
	case errors.As(err, &at) && at.Line > 0:
		return policyfile.Problem{File: file, Line: at.Line, Column: 1, Message: at.Msg}
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func connections(n int) string { return counted(n, "connection") }

// counted is a number of things.
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return count(n) + " " + what
}

// count is a number with the thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
