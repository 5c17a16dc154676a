// Package cgroupbpf decides the connections of every process in a cgroup, with
// BPF programs that the kernel runs. It needs root.
//
// What the policy decides by address, port, protocol and user alone is decided in
// the kernel, at the system call: it costs nothing that can be measured well. What
// needs more (a callout, the program's path) is sent to this process with a record
// of what was asked for; the engine decides when it arrives, and this process
// carries the connection to where it may go. A block is EACCES in the first case
// and a reset in the second, because a BPF program cannot wait for an answer.
//
// What goes through io_uring, i386 system calls, TCP Fast Open and MPTCP passes
// the same hooks. Datagrams that a callout may redirect are carried, too: the
// program hears the answers from where it asked, and of a block by ICMP, if its socket
// is connected. Others that the kernel cannot decide are refused. Sockets belong to the
// cgroup that they were made in.
//
// Programs may be in other network namespaces than this process, as those of containers
// are: it listens in each that the cgroup's programs are in. What a callout redirects
// leaves from this process's namespace, where the proxies are, what it permits from the
// program's.
//
// When this process ends, connections that need an answer are refused; with
// Options.PinDir the programs outlive it and wait for the next one, whose version may
// be another.
package cgroupbpf

import (
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// Options configure an Attachment.
type Options struct {
	// Cgroup is the folder of a version 2 cgroup. Required.
	Cgroup string
	// ALE decides what the kernel cannot. Required.
	ALE *ale.Enforcer
	// Policy is what ALE's engine enforces; the kernel's part is computed from
	// it. Required; not to be modified.
	Policy *fwpm.Policy
	// PinDir is a folder of a BPF file system where programs and maps are pinned,
	// so that they outlive this process. Optional.
	PinDir string
	// Handoff returns the proxy of others at an address, nil if there is none:
	// connections that are redirected there are handed over. Optional.
	Handoff handoff.Finder
	// Records returns the redirect records that were set on the socket with a cookie
	// (SO_COOKIE), with references that are the attachment's from then on. Optional.
	Records func(cookie uint64) redirect.Records
	// AskPermitted asks ALE about every connect that the kernel has permitted, so
	// that its observers hear of it; what ALE then says has no effect. Datagrams that
	// are sent without connect() are left out.
	AskPermitted bool
	// MaxDatagramBytes is what all datagrams together may take of the memory while they wait,
	// to be decided or for a proxy; more get lost, but for 2 KiB each way of each flow. Optional: 64 MiB.
	MaxDatagramBytes int64
	// MaxDatagramFlows is how many flows of datagrams there may be at once. One user has no more than
	// are left for others. Optional: 32,768, or a quarter of the descriptors that the process may have
	// (RLIMIT_NOFILE) if that is less.
	MaxDatagramFlows int64
	// MaxConnections is how many connections may be carried at once, of one user likewise; more are
	// reset. What the kernel decides takes none. Optional: a quarter of the descriptors: one takes two,
	// and six while an end does not read. More than half of the descriptors are an error.
	MaxConnections int64
	// Logf hears of what somebody may need to look into. Optional.
	Logf func(format string, args ...any)
	// OnBlocked hears of every connect and datagram that was refused. Optional.
	OnBlocked func(enforce.Denial)
}
