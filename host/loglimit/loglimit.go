// Package loglimit bounds what others make a process log: who runs a program or reaches a
// port could fill the disk. Of each kind of line some are logged at once, and one a second
// from then on; how many were left out is told with the next one.
package loglimit

import (
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Burst is how many lines of a kind a Log has at once.
	Burst = 20
	// Every is how long it takes until there may be one more.
	Every = time.Second
)

// A Kind is one kind of line; the zero value has had none. It takes no lock: a line that is
// left out costs a look at the clock and a count.
type Kind struct {
	due  atomic.Int64 // when the next line came if they came evenly: after start, zero for never
	left atomic.Uint64
}

var start = time.Now()

// Pass reports whether a line may be logged, of which so many may be at once, and how many
// were left out before it.
func (k *Kind) Pass(burst int) (left uint64, ok bool) {
	now := int64(time.Since(start))
	for {
		due := k.due.Load()
		next := due
		if due == 0 || due < now {
			next = now
		}
		if next-now > int64(burst-1)*int64(Every) {
			k.left.Add(1)
			return 0, false
		}
		if k.due.CompareAndSwap(due, next+int64(Every)) {
			return k.left.Swap(0), true
		}
	}
}

// Kinds are kinds by what they are called. A name is kept: nobody else may make them up.
type Kinds struct{ all sync.Map }

// Of returns the one of a comparable name.
func (k *Kinds) Of(name any) *Kind {
	kind, ok := k.all.Load(name)
	if !ok {
		kind, _ = k.all.LoadOrStore(name, new(Kind))
	}
	return kind.(*Kind)
}

// Left tells of each that has lines which were left out, and had no next one, how many.
func (k *Kinds) Left(tell func(name any, lines uint64)) {
	k.all.Range(func(name, kind any) bool {
		if lines := kind.(*Kind).left.Swap(0); lines > 0 {
			tell(name, lines)
		}
		return true
	})
}

// A Log limits lines by their format, each of which is a kind: none of them can hide another.
type Log struct {
	logf  func(format string, args ...any)
	kinds Kinds
}

// New returns a Log of what logf does; nil is nothing.
func New(logf func(format string, args ...any)) *Log {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	return &Log{logf: logf}
}

// Printf logs a line, or counts it.
func (l *Log) Printf(format string, args ...any) {
	switch left, ok := l.kinds.Of(format).Pass(Burst); {
	case !ok:
	case left == 0:
		l.logf(format, args...)
	default:
		l.logf(format+" (%d more like it were not logged)", append(args, left)...)
	}
}

var verb = regexp.MustCompile(`%[+#]?[a-z]`)

// Close tells of what was left out and had no next line.
func (l *Log) Close() {
	l.kinds.Left(func(format any, lines uint64) {
		l.logf("%s (%d more like it were not logged)", verb.ReplaceAllLiteralString(format.(string), "…"), lines)
	})
}
