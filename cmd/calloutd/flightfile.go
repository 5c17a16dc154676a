package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/calloutd/calloutd/host/flight"
)

// A flightFile is one that is read, with a bar.
type flightFile struct {
	name string
	in   io.ReadCloser
	r    *flight.Reader
	bar  *progress
	warn func(format string, args ...any)
}

// openFlight opens a file, or standard input if it is "-".
func openFlight(name string, errs io.Writer) (*flightFile, error) {
	if name == "-" {
		return newFlight("standard input", os.Stdin, 0, errs), nil
	}
	f, err := openInput(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return newFlight(name, f, info.Size(), errs), nil
}

func newFlight(name string, in io.ReadCloser, size int64, errs io.Writer) *flightFile {
	return &flightFile{name: name, in: in, r: flight.NewReader(in), bar: newProgress(errs, size, "connections"),
		warn: func(format string, args ...any) { fmt.Fprintf(errs, "calloutd: "+format+"\n", args...) }}
}

// entries are those of the file, which is closed afterwards.
func (f *flightFile) entries() iter.Seq2[*flight.Entry, error] {
	return func(yield func(*flight.Entry, error) bool) {
		defer f.in.Close()
		defer f.bar.end()
		for n := 0; ; n++ {
			e, err := f.r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if n == 0 && errors.Is(err, gzip.ErrHeader) {
					err = errors.New("this is no flight file: run --record writes such files, and record makes them of other programs' logs")
				}
				yield(nil, fmt.Errorf("%s: %w", f.name, err))
				return
			}
			f.bar.at(f.r.Offset(), n)
			if !yield(e, nil) {
				return
			}
		}
		if f.r.Torn() {
			f.warn("%s: the end is cut off: what wrote it was ended", f.name)
		}
	}
}

// isFlight looks whether a file begins as flight files do.
func isFlight(b *bufio.Reader) bool {
	head, err := b.Peek(2)
	return err == nil && head[0] == 0x1f && head[1] == 0x8b
}
