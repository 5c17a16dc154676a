//go:build amd64 || arm64

package cgroupbpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A hook is where the kernel runs a program.
type hook struct {
	name string
	at   ebpf.AttachType
	prog *ebpf.Program
}

func (a *Attachment) hooks() []hook {
	o := &a.objs
	return []hook{
		{"hold", ebpf.AttachCGroupInetEgress, o.Hold}, {"socket_states", ebpf.AttachCGroupSockOps, o.SocketStates}, // The first: what others send needs them.
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, o.Recvmsg4}, {"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, o.Recvmsg6},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, o.Getpeername4}, {"getpeername6", ebpf.AttachCgroupInet6GetPeername, o.Getpeername6},
		{"sock_create", ebpf.AttachCGroupInetSockCreate, o.SockCreate},
		{"connect4", ebpf.AttachCGroupInet4Connect, o.Connect4}, {"connect6", ebpf.AttachCGroupInet6Connect, o.Connect6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, o.Sendmsg4}, {"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, o.Sendmsg6},
	}
}

// attach hooks the programs in: in the place of those that are pinned for the cgroup, if
// there are any.
func (a *Attachment) attach() error {
	id, err := cgroupID(a.opts.Cgroup)
	if err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	old, err := findOld(a.opts.PinDir, a.opts.Cgroup, id, func(dir string) bool { return dir == a.pinDir() })
	if err != nil {
		return errors.Join(err, old.close())
	}
	for _, h := range a.hooks() {
		if err := a.hookIn(h, old); err != nil {
			return errors.Join(err, old.close())
		}
	}
	a.to = id
	return old.discard(a.pinDir())
}

// hookIn hooks one program in.
func (a *Attachment) hookIn(h hook, old *oldPins) error {
	path := ""
	if dir := a.pinDir(); dir != "" {
		path = filepath.Join(dir, "link-"+h.name)
	}
	if p, ok := old.take(h.at); ok {
		a.links = append(a.links, p)
		return a.replace(p, h.prog, path)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: a.opts.Cgroup, Attach: h.at, Program: h.prog})
	if err != nil {
		return fmt.Errorf("cgroupbpf: attach %s to %s: %w", h.name, a.opts.Cgroup, err)
	}
	a.links = append(a.links, l)
	if path != "" {
		if err := l.Pin(path); err != nil {
			return fmt.Errorf("cgroupbpf: pin %s: %w", h.name, err)
		}
	}
	return nil
}
