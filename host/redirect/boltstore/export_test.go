package boltstore

import "github.com/calloutd/calloutd/host/redirect"

// Points are where the process can be ended.
var Points = []string{"put in memory", "batch begun", "batch written", "batch on disk", "file read", "rewrite begun", "rewrite half", "rewrite written", "rewrite renamed"}

// SetAt lets f be called at each point.
func SetAt(f func(point string)) { at = f }

// SetCompactFrom sets from which size on files are made smaller.
func SetCompactFrom(n int64) { compactFrom = n }

// Read reads a file and nothing else; itself is all that it says besides its hops.
func Read(path string, each func(*redirect.Hop) error) (itself any, err error) {
	return read(path, each)
}

// Checked is a value of what a file says of itself.
func Checked(key string, value []byte) []byte { return checked([]byte(key), value) }

// Asked says whether somebody waits for the next write.
func (s *Store) Asked() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.asked
}
