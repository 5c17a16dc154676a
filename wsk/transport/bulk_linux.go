package transport

import (
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func inq(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) }

// A pipe is what bytes are spliced through. It is empty while nobody has it.
type pipe struct {
	ends    [2]int // to read, to write
	cleanup runtime.Cleanup
}

// pipes are those that nobody has; the collector takes what is too many.
var pipes sync.Pool

// pipeSize is how much a pipe holds, if the user may have so much.
const pipeSize = 1 << 20

func takePipe() (*pipe, error) {
	if p, ok := pipes.Get().(*pipe); ok {
		return p, nil
	}
	p := new(pipe)
	if err := unix.Pipe2(p.ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(p.ends[0]), unix.F_SETPIPE_SZ, pipeSize) // A small one does it too.
	p.cleanup = runtime.AddCleanup(p, closeEnds, p.ends)
	return p, nil
}

func closeEnds(ends [2]int) {
	unix.Close(ends[0])
	unix.Close(ends[1])
}

// discard is for a pipe that is not empty.
func (p *pipe) discard() {
	p.cleanup.Stop()
	closeEnds(p.ends)
}

// bulk splices n bytes that are there; io.EOF is an end before that. stalled is called
// when dst takes nothing for the moment.
func bulk(dst, src syscall.RawConn, n int, stalled func()) (moved int64, err error) {
	p, err := takePipe()
	if err != nil {
		return 0, err
	}
	for int(moved) < n {
		var in, out int
		if in, err = p.fill(src, n-int(moved)); err == nil && in == 0 {
			err = io.EOF
		}
		if err != nil {
			break // It is empty.
		}
		out, err = p.drain(dst, in, stalled)
		moved += int64(out)
		if err != nil {
			p.discard()
			return moved, err
		}
	}
	pipes.Put(p)
	return moved, err
}

// fill splices at most n bytes into the pipe. One that is empty takes something: who
// has to wait waits for src.
func (p *pipe) fill(src syscall.RawConn, n int) (in int, err error) {
	waited := src.Read(func(fd uintptr) bool {
		in, err = splice(int(fd), p.ends[1], min(n, pipeSize))
		return err != unix.EAGAIN
	})
	if waited != nil {
		return 0, waited
	}
	return in, os.NewSyscallError("splice", err)
}

// drain splices the n bytes of the pipe.
func (p *pipe) drain(dst syscall.RawConn, n int, stalled func()) (out int, err error) {
	waited := dst.Write(func(fd uintptr) bool {
		for out < n && err == nil {
			var k int
			if k, err = splice(p.ends[0], int(fd), n-out); err == nil {
				out += k
			}
		}
		if err == unix.EAGAIN {
			err = nil
			stalled()
			return false
		}
		return true
	})
	if waited != nil {
		return out, waited
	}
	return out, os.NewSyscallError("splice", err)
}

func splice(from, to, n int) (int, error) {
	for {
		k, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return max(int(k), 0), err
		}
	}
}
