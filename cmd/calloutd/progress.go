package main

import (
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/calloutd/calloutd/host/policytest"
)

// A progress says on a terminal how far something is.
type progress struct {
	out  io.Writer // nil: nobody looks
	all  int64     // 0: not known
	of   string    // what is counted
	next time.Time
}

// newProgress draws on out, if it is a terminal.
func newProgress(out io.Writer, all int64, of string) *progress {
	p := &progress{all: all, of: of}
	if isTerminal(out) {
		p.out = out
	}
	return p
}

const (
	progressWidth = 30
	progressEvery = 100 * time.Millisecond
)

// at draws the bar, not too often: done of all, and what was counted.
func (p *progress) at(done int64, counted int) {
	if p.out == nil || time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(progressEvery)
	if p.all <= 0 {
		drawLine(p.out, fmt.Sprintf("%s %s", count(counted), p.of))
		return
	}
	part := min(1, float64(done)/float64(p.all))
	full := int(part * progressWidth)
	drawLine(p.out, fmt.Sprintf("[%s%s] %3.0f %%  %s %s", strings.Repeat("#", full), strings.Repeat(".", progressWidth-full), 100*part, count(counted), p.of))
}

// drawLine draws over the line of before. What did not fit the terminal's width would go on
// in a line that nothing draws over.
func drawLine(out io.Writer, line string) {
	if f, ok := out.(interface{ Fd() uintptr }); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && len(line) >= width {
			line = line[len(line)-width+1:] // the number is at the end
		}
	}
	fmt.Fprint(out, "\r\x1b[K"+line)
}

// end takes the bar away.
func (p *progress) end() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// counting draws how many connections were taken.
func counting(connections iter.Seq2[policytest.Question, error], bar *progress) iter.Seq2[policytest.Question, error] {
	return func(yield func(policytest.Question, error) bool) {
		defer bar.end()
		n := 0
		for q, err := range connections {
			bar.at(int64(n), n)
			if !yield(q, err) {
				return
			}
			n++
		}
	}
}

// doing says on a terminal what is done, where nobody knows how long that takes, and for
// how long. end takes the line away.
func doing(out io.Writer, what string) (end func()) {
	if !isTerminal(out) {
		return func() {}
	}
	began, tick, done := time.Now(), time.NewTicker(time.Second), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			drawLine(out, fmt.Sprintf("%s, %.0f s", what, time.Since(began).Seconds()))
			select {
			case <-tick.C:
			case <-done:
				fmt.Fprint(out, "\r\x1b[K")
				return
			}
		}
	})
	return func() {
		tick.Stop()
		close(done)
		wg.Wait()
	}
}
