//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package guest

import "syscall"

func newMemory(most uint64) *memory {
	all, err := syscall.Mmap(-1, 0, int(most), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil { // None of 0 bytes, for one.
		return onHeap(most)
	}
	return &memory{all, unmap}
}

// unmap fails only for what was not mapped.
func unmap(b []byte) { _ = syscall.Munmap(b) }
