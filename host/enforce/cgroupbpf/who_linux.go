//go:build amd64 || arm64

package cgroupbpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// incoming is what is known about a connect.
func incoming(r *bpf.RedirectRecord) fwps.Incoming {
	to := netip.AddrFrom16(r.Address)
	if family(r.Family) == v4 {
		to = to.Unmap()
	}
	if r.Scope != 0 {
		to = to.WithZone(strconv.FormatUint(uint64(r.Scope), 10))
	}
	local := netip.IPv6Unspecified()
	if to.Is4() {
		local = netip.IPv4Unspecified()
	}
	return fwps.Incoming{Protocol: r.Protocol, ProcessID: r.Process, UserID: r.User, UserKnown: true, AppID: program(r.Process), EndpointID: r.Cookie,
		Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(to, swap(r.Port))}
}

// program is the path of a process's program, nothing if that has ended. When its leading
// thread has, the others still tell.
func program(process uint32) string {
	if process == 0 { // The packet of a connection, which nobody in particular sent.
		return ""
	}
	dir := "/proc/" + strconv.Itoa(int(process))
	path, err := os.Readlink(dir + "/exe")
	if err == nil {
		return enforce.ProgramPath(path)
	}
	threads, _ := filepath.Glob(dir + "/task/*/exe")
	for _, exe := range threads {
		if path, err := os.Readlink(exe); err == nil {
			return enforce.ProgramPath(path)
		}
	}
	return ""
}

// unknown refuses a program that has ended before its path could be read, where that
// decides: it may be one that is blocked.
func (a *Attachment) unknown(r *bpf.RedirectRecord, in *fwps.Incoming) error {
	if in.AppID != "" || !a.byProgram.Load() {
		return nil
	}
	in.AppID = command(r)
	return because(in, "its program has ended, and the policy decides by programs")
}

// because is a refusal that no filter is the reason of.
func because(in *fwps.Incoming, why string) error {
	return &ale.BlockedError{Layer: fwpm.LayerALEAuthConnectV4.ForFamily(!in.Remote.Addr().Unmap().Is4()), Remote: in.Remote,
		ProcessID: in.ProcessID, AppID: in.AppID, Why: why}
}

// refuses says what is refused without being asked about: what unknown says, and an address
// of a link of another network namespace, which here would be one of another link.
func (h *home) refuses(r *bpf.RedirectRecord, in *fwps.Incoming) error {
	if r.Scope == 0 || h.space == nil {
		return h.a.unknown(r, in)
	}
	return because(in, "only a callout or the program's path can decide it, and its link is in another network namespace than calloutd")
}

// command is what is known of a program that has ended, marked as no path is.
func command(r *bpf.RedirectRecord) string {
	name, _, _ := bytes.Cut(r.Command[:], []byte{0})
	if len(name) == 0 { // A packet does not tell.
		return fmt.Sprintf("[user %d, ended]", r.User)
	}
	return fmt.Sprintf("[%s, user %d, ended]", name, r.User)
}
