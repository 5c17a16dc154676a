package arenastore

import "golang.org/x/sys/unix"

type pages struct{}

// huge asks for a huge page: one fault and one TLB entry instead of 512. It is a
// wish, so an error means nothing.
func (pages) huge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// drop costs memory if it fails, nothing else.
func (pages) drop(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

func (pages) drops() bool { return true }
