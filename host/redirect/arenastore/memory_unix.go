//go:build unix

package arenastore

import "golang.org/x/sys/unix"

// mapped is memory that the garbage collector does not know of.
type mapped struct{ pages }

func systemMemory() memory { return mapped{} }

// large is from how many regions on a store is better off with huge pages.
const large = 4

func (m mapped) take(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil && n >= large {
		m.huge(b)
	}
	return b, err
}

func (mapped) give(b []byte) error { return unix.Munmap(b) }
