//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/sys/unix"
)

// An identity is who a thread acts for.
type identity struct {
	exe    string // the path of its program
	uid    uint32 // effective
	gid    uint32
	groups []uint32 // gid and the supplementary ones
}

var noName [1]byte // the link that is open itself

// identify reads the program and the effective user, which both can change at
// any time: the program by an exec, after which seen is not its token. Another thread
// that execs takes over the number and brings its own groups. What it returns must not
// be changed. buf is scratch.
func (t *target) identify(seen *token, buf []byte) (*identity, error) {
	if t.mark.at != 0 && *seen == (token{}) { // The call had no address to be read.
		_ = readMemory(t.tid, t.mark.at, seen[:]) // Without it, it is another program.
	}
	if t.mark.at == 0 || t.mark.token != *seen {
		t.id.groups = nil
		if e := t.readProgram(seen, buf); e != 0 {
			return nil, e
		}
	}
	var st unix.Stat_t
	if _, _, e := unix.RawSyscall(unix.SYS_FSTAT, uintptr(t.dir), uintptr(unsafe.Pointer(&st)), 0); e != 0 {
		return nil, e
	}
	t.id.uid = st.Uid
	if t.id.groups == nil || t.id.gid != st.Gid {
		return &t.id, t.readGroups(st.Gid)
	}
	return &t.id, nil
}

// readProgram asks /proc. It looks for a mark the second time, as many threads
// connect only once, and before the program: an exec in between leaves the new
// program with the mark of the old one, which it does not have.
func (t *target) readProgram(seen *token, buf []byte) unix.Errno {
	m := t.mark
	t.mark = mark{} // Unless the program is read as well.
	if *seen != (token{}) {
		m = mark{}
	}
	if known := t.link != ""; known && m.at == 0 && !t.unmarked && !t.shared {
		m = t.readMark(buf)
		t.unmarked = m.at == 0
	}
	n, _, e := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(t.exe), uintptr(unsafe.Pointer(&noName)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if e != 0 {
		return e
	}
	if string(buf[:n]) != t.link { // Compared without a copy.
		t.link, t.unmarked = string(buf[:n]), false
		t.id.exe = enforce.ProgramPath(t.link)
	}
	t.mark = m
	return 0
}

// readGroups is done once for a thread of a program: setgroups is trapped, see forget.
func (t *target) readGroups(gid uint32) error {
	st, err := readStatus(t.dir)
	if err != nil {
		return err
	}
	t.id.gid, t.id.groups = gid, []uint32{gid}
	for f := range bytes.FieldsSeq(st.line("Groups:")) {
		g, _ := strconv.ParseUint(string(f), 10, 32)
		t.id.groups = append(t.id.groups, uint32(g))
	}
	return nil
}
