//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// threadGroup returns the process of the thread whose /proc directory is dir.
func threadGroup(dir int) (uint32, error) {
	st, err := readStatus(dir)
	return uint32(st.number("Tgid:", 10)), err
}

// A status is the text of /proc/TID/status.
type status []byte

func readStatus(dir int) (status, error) {
	fd, err := unix.Openat(dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "status")
	defer f.Close()
	return io.ReadAll(f)
}

func (s status) line(key string) []byte {
	for line := range bytes.Lines(s) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return bytes.TrimSpace(rest)
		}
	}
	return nil
}

func (s status) number(key string, base int) uint64 {
	v, _ := strconv.ParseUint(string(s.line(key)), base, 64)
	return v
}

// signalPending reports whether a signal handler waits for this very thread. A
// signal to the process counts only when it has no other thread that could take
// it: to answer -ERESTARTSYS to a thread without a signal would leak it.
func (t *target) signalPending() bool {
	st, err := readStatus(t.dir)
	if err != nil {
		return false
	}
	pending := st.number("SigPnd:", 16)
	if st.number("Threads:", 10) == 1 {
		pending |= st.number("ShdPnd:", 16)
	}
	return pending&^st.number("SigBlk:", 16)&st.number("SigCgt:", 16) != 0
}
