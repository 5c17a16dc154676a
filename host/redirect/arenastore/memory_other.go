//go:build !unix

package arenastore

func systemMemory() memory { return heap{} }
