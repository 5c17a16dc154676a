//go:build unix && !solaris && !linux

package transport

import (
	"errors"
	"syscall"
)

// Package unix has no FIONREAD for these systems: what the socket itself has
// read ahead is then all that counts.
func inq(int) (int, error) { return 0, nil }

// bulk is for what inq says: nobody comes here.
func bulk(_, _ syscall.RawConn, _ int, _ func()) (int64, error) { return 0, errors.ErrUnsupported }
