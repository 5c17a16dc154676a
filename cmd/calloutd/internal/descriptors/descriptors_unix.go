//go:build unix

package descriptors

import (
	"strconv"
	"syscall"
)

// needed is for Go's poller, two, and for a file, which protobuf opens before main does.
// Where they are missing Go's runtime ends with a stack trace.
const needed = 3

// Packages are initialized in the order of their paths, what they import first: this one
// imports little, so that it comes before those that open files.
func init() {
	var got []int
	for range needed {
		fd, err := syscall.Dup(0)
		if err == syscall.EMFILE {
			_, _ = syscall.Write(2, []byte("calloutd: too many open files: "+strconv.Itoa(len(got))+" descriptors are free, calloutd needs "+strconv.Itoa(needed)+" to begin (ulimit -n)\n"))
			syscall.Exit(125) // as main's codeTool
		}
		got = append(got, fd)
	}
	for _, fd := range got {
		_ = syscall.Close(fd)
	}
}
