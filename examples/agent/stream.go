package main

import (
	"fmt"
	"sync"

	"github.com/calloutd/calloutd/host/policytrace"
)

// most is how many events wait for one who reads slowly.
const most = 1024

// A stream hands events to all who follow it. A connection waits for none of them:
// one who is too slow loses events, and is told how many.
type stream struct {
	mu        sync.Mutex
	followers map[*follower]bool
	ended     bool
}

type follower struct {
	events chan policytrace.Event
	lost   int
}

// follow returns the events from now on, and what ends it.
func (s *stream) follow() (<-chan policytrace.Event, func()) {
	f := &follower{events: make(chan policytrace.Event, most)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		close(f.events)
		return f.events, func() {}
	}
	if s.followers == nil {
		s.followers = map[*follower]bool{}
	}
	s.followers[f] = true
	return f.events, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.followers, f)
	}
}

func (s *stream) send(e policytrace.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.followers {
		f.send(e)
	}
}

func (f *follower) send(e policytrace.Event) {
	if f.lost > 0 && len(f.events) <= most-2 {
		f.events <- policytrace.Event{Event: "lost", Why: fmt.Sprintf("%d events were lost", f.lost)}
		f.lost = 0
	}
	if f.lost > 0 || len(f.events) == most {
		f.lost++
		return
	}
	f.events <- e
}

// end ends it for all.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for f := range s.followers {
		close(f.events)
		delete(s.followers, f)
	}
}
