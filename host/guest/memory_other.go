//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package guest

func newMemory(most uint64) *memory { return onHeap(most) }
