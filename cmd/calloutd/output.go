package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// outliveReaders lets a daemon go on without whoever read its output: it enforces, and a
// signal of a broken pipe would let connections pass. It is caught and not ignored, which
// commands that it starts would inherit.
func outliveReaders() (undo func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// An output is standard output that remembers why it could not be written: who prints
// lines seldom looks, and on a full disk half a report is no success.
type output struct {
	file *os.File

	mu  sync.Mutex
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.file.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// Fd tells who draws that it may be a terminal.
func (o *output) Fd() uintptr { return o.file.Fd() }

// failure is the first error.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
