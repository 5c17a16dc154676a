package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// eventsVersion changes when a key of --events changes its meaning or goes. That
// one is added is no change: README.md says so to who reads them.
const eventsVersion = 1

// An eventLog is what --events writes: a line for every event, while the program
// waits, so that a line is there when what it tells of happens.
type eventLog struct {
	mu  sync.Mutex
	out io.Writer
	now func() time.Time
	err error // of the first line that could not be written
}

// openEvents opens the file of --events; "-" is standard output.
func openEvents(file string) (*eventLog, func(), error) {
	if file == "-" {
		return &eventLog{out: os.Stdout, now: time.Now}, func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, nil, fmt.Errorf("--events: %w", err)
	}
	return &eventLog{out: f, now: time.Now}, func() { f.Close() }, nil
}

// write adds an event. A nil log has no room for any.
func (l *eventLog) write(e event) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := json.Marshal(struct {
		Version int       `json:"version"`
		Time    time.Time `json:"time"`
		event
	}{eventsVersion, l.now().UTC(), e})
	if err == nil {
		_, err = l.out.Write(append(line, '\n'))
	}
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("--events is not complete: %w", err)
	}
}

// failure is why lines are missing; nil if none is.
func (l *eventLog) failure() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
