//go:build unix && !linux

package arenastore

// Elsewhere MADV_DONTNEED and MADV_FREE promise nothing: memory goes back by the
// region.
type pages struct{}

func (pages) huge([]byte) {}
func (pages) drop([]byte) {}
func (pages) drops() bool { return false }
