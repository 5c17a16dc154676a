//go:build amd64 || arm64

package seccomp

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Before Linux 5.19 a signal interrupts a call although it is being answered,
// and the kernel restarts it as a new notification with the same values. The
// new one waits for the old one's work and takes its result.
type restarts struct {
	mu      sync.Mutex
	ended   sync.Cond           // L is mu; set by begin
	running map[uint32]struct{} // by thread
	lost    map[uint32]result   // by thread: results that may not have arrived
}

// What is the same in a restarted connect().
type repeatable struct {
	ip     uint64
	args   [6]uint64
	cookie uint64
}

type result struct {
	call  repeatable
	errno unix.Errno
}

func (w *worker) repeatable() repeatable {
	return repeatable{w.n.Data.IP, w.n.Data.Args, w.sock.cookie}
}

// begin waits until no other worker answers a call of the thread. With ok, this
// call is the interrupted one restarted, and errno its result; or it was
// interrupted too, and errno is nobody. end must follow if w.restartable is set.
func (rs *restarts) begin(w *worker) (errno unix.Errno, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.running == nil {
		rs.ended.L = &rs.mu
		rs.running, rs.lost = map[uint32]struct{}{}, map[uint32]result{}
	}
	for {
		if _, other := rs.running[w.n.TID]; !other {
			break
		}
		rs.ended.Wait()
	}
	if !w.s.l.valid(&w.n.ID) { // What is kept is for a newer call of the thread.
		return nobody, true
	}
	rs.running[w.n.TID] = struct{}{}
	w.restartable = true
	r, ok := rs.lost[w.n.TID]
	delete(rs.lost, w.n.TID)
	return r.errno, ok && r.call == w.repeatable()
}

// end keeps a result that may not have arrived, for the thread's next call. The
// kernel may drop even one that it has taken; of those only a success is kept,
// as a program may well call again after an error. A result that says the
// connect goes on is not kept: the socket knows better by then.
func (rs *restarts) end(w *worker, errno unix.Errno, delivered bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if errno == 0 || !delivered && !inProgress(errno) {
		if len(rs.lost) >= 4096 { // Of threads that died.
			clear(rs.lost)
		}
		rs.lost[w.n.TID] = result{w.repeatable(), errno}
	}
	delete(rs.running, w.n.TID)
	rs.ended.Broadcast()
}
