package carry

import (
	"context"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Queued returns what carries a datagram that was put to the flow, for Datagrams.
func (f *Flow) Queued(use func(ctx context.Context, b []byte) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case d := <-f.queue:
			defer f.free(d)
			return use(ctx, d.room[:d.n])
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Answered is Received of a Peer, where there may be nobody.
func (f *Flow) Answered(p Peer, use func(ctx context.Context, b []byte) error) func(context.Context) error {
	carry := f.Received(p, use)
	return func(ctx context.Context) error { return nobody(carry(ctx)) }
}

// Received returns what carries a datagram that comes to a socket, for Datagrams. While it
// waits it holds no memory: most flows do most of the time.
func (f *Flow) Received(s Source, use func(ctx context.Context, b []byte) error) func(context.Context) error {
	raw, err := s.SyscallConn()
	var size int
	var errno syscall.Errno
	way := new(atomic.Int64)
	receive := func(flags uintptr) func(uintptr) bool {
		return func(fd uintptr) bool {
			n, _, e := unix.Syscall6(unix.SYS_RECVFROM, fd, 0, 0, flags|unix.MSG_DONTWAIT, 0, 0)
			size, errno = int(n), e
			return e != unix.EAGAIN
		}
	}
	peek, discard := receive(unix.MSG_PEEK|unix.MSG_TRUNC), receive(0)
	wait := func(receive func(uintptr) bool) error {
		if err := raw.Read(receive); err != nil || errno == 0 {
			return err
		}
		return os.NewSyscallError("recvfrom", errno)
	}
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		if err := wait(peek); err != nil {
			return err
		}
		d := f.room(size, way)
		if d == nil {
			return wait(discard)
		}
		defer f.free(d)
		b, err := s.Receive(d.room)
		if err != nil || b == nil {
			return err
		}
		return use(ctx, b)
	}
}
