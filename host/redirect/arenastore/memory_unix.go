//go:build unix

package arenastore

import "golang.org/x/sys/unix"

// mapped is memory that the garbage collector does not know of.
type mapped struct{ pages }

func systemMemory() memory { return mapped{} }

func (m mapped) take(size int, huge bool) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil && huge {
		m.huge(b)
	}
	return b, err
}

func (mapped) give(b []byte) error { return unix.Munmap(b) }
