package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

// connections are what is compared; all is how many there would be.
func (o *diffOptions) connections(worlds []*policytest.World, errs io.Writer) (seq iter.Seq2[policytest.Question, error], all int, err error) {
	name, in := o.over, os.Stdin
	switch o.over {
	case "":
		space := policytest.Boundaries(worlds...)
		return counting(space.Questions(o.limit), newProgress(errs, int64(min(o.limit, space.Size())), "connections")), space.Size(), nil
	case "-":
		name = "standard input"
	default:
		if in, err = openInput(o.over); err != nil {
			return nil, 0, fmt.Errorf("--over: %w", err)
		}
	}
	head := bufio.NewReader(in)
	if !isFlight(head) {
		return counting(lines(name, in, head), newProgress(errs, 0, "connections")), 0, nil
	}
	var size int64
	if info, err := in.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return recordedIn(newFlight(name, struct {
		io.Reader
		io.Closer
	}{head, in}, size, errs), worlds[0]), 0, nil
}

// recordedIn are the connections of a flight file.
func recordedIn(f *flightFile, w *policytest.World) iter.Seq2[policytest.Question, error] {
	return func(yield func(policytest.Question, error) bool) {
		for e, err := range f.entries() {
			q := policytest.Question{Entry: e}
			if err == nil {
				q.In = w.Incoming(e)
			}
			if !yield(q, err) {
				return
			}
		}
	}
}

// lines reads connections, one at a time, and closes the file.
func lines(file string, f io.Closer, in io.Reader) iter.Seq2[policytest.Question, error] {
	return func(yield func(policytest.Question, error) bool) {
		defer f.Close()
		s, n := bufio.NewScanner(in), 1
		for ; s.Scan(); n++ {
			c, ok, err := policytest.ParseConnection(file, n, strings.TrimPrefix(s.Text(), "\ufeff")) // an editor's byte order mark
			if (ok || err != nil) && !yield(policytest.Question{In: c}, err) {
				return
			}
		}
		switch err := s.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(policytest.Question{}, policyfile.Problem{File: file, Line: n, Column: 1, Message: fmt.Sprintf("the line is longer than %d bytes", bufio.MaxScanTokenSize)})
		case err != nil:
			yield(policytest.Question{}, fmt.Errorf("%s: %w", file, err))
		}
	}
}
