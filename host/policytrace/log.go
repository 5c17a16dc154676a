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
	// OnWrite hears of a line that cannot be written after one that could, and, with nil, of the
	// next one that can. Optional. Not to be changed once there is an event.
	OnWrite func(error)

	mu   sync.Mutex
	out  io.Writer
	now  func() time.Time
	err  error // of the first line that could not be written
	last error // of the last line
	torn bool  // the last line is there in part
}

// NewLog returns a log that is written to out.
func NewLog(out io.Writer) *Log { return &Log{out: out, now: time.Now} }

// Write adds an event. A nil log has no room for any.
func (l *Log) Write(e Event) {
	if l == nil {
		return
	}
	if before, err := l.write(e); (before == nil) != (err == nil) && l.OnWrite != nil {
		l.OnWrite(err)
	}
}

// write returns how the line before went, and how this one does.
func (l *Log) write(e Event) (before, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := json.Marshal(struct {
		Version int       `json:"version"`
		Time    time.Time `json:"time"`
		Event
	}{Version, l.now().UTC(), e})
	if err == nil {
		if l.torn { // What has room later begins a line.
			line = append([]byte{'\n'}, line...)
		}
		var n int
		n, err = l.out.Write(append(line, '\n'))
		l.torn = err != nil && (n > 0 || l.torn)
	}
	before, l.last = l.last, err
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("the log of events is not complete: %w", err)
	}
	return before, err
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
