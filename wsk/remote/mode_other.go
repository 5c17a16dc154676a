//go:build !linux

package remote

import (
	"io/fs"
	"syscall"
)

// setMode does nothing: elsewhere a socket has no mode before it has a name.
func setMode(syscall.RawConn, fs.FileMode) error { return nil }
