package arenastore

import "github.com/calloutd/calloutd/host/internal/race"

// A memory is where regions come from.
type memory interface {
	// take returns so many bytes, which are zero, in huge pages if it can.
	take(size int, huge bool) ([]byte, error)
	// give takes them back, if it can.
	give([]byte) error
	// drop takes the pages of an unused part back, which keeps its addresses, and
	// drops says whether there is such a thing.
	drop(part []byte)
	drops() bool
}

// heap is memory for systems without mmap and for the race detector, which sees
// nothing else. What it gives has no pointers: the collector does not scan it.
type heap struct{}

func (heap) take(size int, _ bool) ([]byte, error) { return make([]byte, size), nil }
func (heap) give([]byte) error                     { return nil }
func (heap) drop([]byte)                           {}
func (heap) drops() bool                           { return false }

func defaultMemory() memory {
	if race.Enabled {
		return heap{}
	}
	return systemMemory()
}
