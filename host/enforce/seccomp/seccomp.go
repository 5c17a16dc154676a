// Package seccomp runs a command and decides what it and its descendants do with
// their sockets, through seccomp user notification: connect(), bind(), listen(),
// accept() and datagrams. It needs no privilege.
//
// The decision is synchronous: a blocked connect() fails with EACCES before a
// packet leaves, and a redirected one connects elsewhere. The supervisor itself
// performs the call, on the program's socket, with its own copy of the address,
// so nothing that the program changes afterwards counts.
//
// What the program cannot do: io_uring, MSG_FASTOPEN, the i386 and x32 system
// call tables, INET sockets other than TCP, UDP and ICMP, source routes, a listener of
// its own, userfaultfd for faults of others, typing into a terminal, setuid (no_new_privs). Datagrams that come in are not decided; Unenforced says
// which filters of a policy that concerns. When the supervisor dies, the calls
// fail with ENOSYS.
//
// It is not a jail: a program may ask another one, outside the tree, to connect.
package seccomp

import (
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
)

// Options configure Run.
type Options struct {
	ALE *ale.Enforcer // Required.
	// Logf hears of what somebody may need to look into. Optional.
	Logf func(format string, args ...any)
	// OnBlocked hears of everything that was refused, perhaps on several goroutines
	// at once: also of what could not be looked into, without an address. Optional: Logf
	// hears of the latter then. The program waits for it.
	OnBlocked func(enforce.Denial)
	// ShowRequested makes getpeername and getsockname answer with what the program
	// asked for, where a callout redirected it. Every such call is trapped then.
	ShowRequested bool
	// Handoff returns the proxy of others at an address, nil if there is none. A
	// connection that is redirected there is handed over before its connect()
	// returns, also on a socket that does not wait. Optional.
	Handoff handoff.Finder
	// HandoffTime is how long such a proxy may take. Signal handlers of the
	// program wait so long, too: a connect that was interrupted in the middle could
	// not be taken up again. Optional: 15 s.
	HandoffTime time.Duration
	// Isolate runs the program in a user and network namespace of its own, from
	// which nothing is reached. The sockets that it asks for are made outside, and
	// no call that another thread could turn to an IP destination is its own.
	Isolate bool

	without without // Tests only.
}

// without leaves something out that a kernel may lack, or a guard, so that a
// test can show what it is there for.
type without struct{ landlock, killable, pidfdThread, undumpable, init bool }
