package policytrace

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Version changes when a key of a log changes its meaning or goes. That one is
// added is no change.
const Version = 1

// A Log is a line of JSON for every event, while the program waits, so that a line
// is there when what it tells of happens. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	out io.Writer
	now func() time.Time
	err error // of the first line that could not be written
}

// NewLog returns a log that is written to out.
func NewLog(out io.Writer) *Log { return &Log{out: out, now: time.Now} }

// Write adds an event. A nil log has no room for any.
func (l *Log) Write(e Event) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := json.Marshal(struct {
		Version int       `json:"version"`
		Time    time.Time `json:"time"`
		Event
	}{Version, l.now().UTC(), e})
	if err == nil {
		_, err = l.out.Write(append(line, '\n'))
	}
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("the log of events is not complete: %w", err)
	}
}

// Err is why lines are missing; nil if none is.
func (l *Log) Err() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
