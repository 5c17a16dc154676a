//go:build amd64 || arm64

package cgroupbpf

import (
	"fmt"
	"os"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Update gives the kernel its part of another policy. A connect sees the old one
// or the new one: the cells of both are there, and one word chooses.
func (a *Attachment) Update(p *fwpm.Policy) error {
	t, err := newTable(p)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var old bpf.RedirectConfig
	if err := a.objs.Configs.Lookup(uint32(0), &old); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	next := old.Generation + 1
	if err := a.clear(next & 1); err != nil { // what was left of the one before the old one
		return err
	}
	if err := a.write(t, next&1); err != nil {
		return err
	}
	c := bpf.RedirectConfig{Generation: next, Daemon: uint32(os.Getpid()), Prefix: words(a.prefix), Tcp4: a.ports[ip4], Tcp6: a.ports[ip6], Cgroup: a.cgroup, Users: uint32(len(t.users))}
	if a.opts.AskPermitted {
		c.Tell = 1
	}
	a.byProgram.Store(len(conditions(p, fwpm.ConditionALEAppID))+len(conditions(p, fwpm.ConditionALEOriginalAppID)) > 0)
	if err := a.objs.Configs.Put(uint32(0), c); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	a.generation, a.names = next, map[fwpm.FilterID]cell{}
	for _, c := range t.cells {
		if c.verdict == block {
			a.names[c.filter] = c
		}
	}
	return nil
}

// write stores a table under the lowest bit of a generation.
func (a *Attachment) write(t *table, parity uint32) error {
	keys, classes := make([]uint32, 1<<16), t.ports[:]
	for port := range keys {
		keys[port] = parity<<16 | uint32(port)
	}
	if _, err := a.objs.PortClasses.BatchUpdate(keys, classes, nil); err != nil {
		return fmt.Errorf("cgroupbpf: port classes: %w", err)
	}
	for uid, class := range t.users {
		if err := a.objs.UserClasses.Put(bpf.RedirectUserKey{Generation: parity, User: uid}, class); err != nil {
			return fmt.Errorf("cgroupbpf: user classes: %w", err)
		}
	}
	for _, c := range t.cells {
		k := bpf.RedirectCellKey{Prefixlen: uint32(64 + c.prefix.Bits()), Generation: uint8(parity), Family: uint8(c.family),
			Protocol: c.protocol, PortClass: c.portClass, UserClass: c.userClass, Address: c.prefix.Addr().As16()}
		if err := a.objs.Cells.Put(k, bpf.RedirectCell{Verdict: uint32(c.verdict), Filter: uint64(c.filter)}); err != nil {
			return fmt.Errorf("cgroupbpf: cells: %w", err)
		}
	}
	return nil
}

// clear deletes the cells and users of one parity.
func (a *Attachment) clear(parity uint32) error {
	var cells []bpf.RedirectCellKey
	var users []bpf.RedirectUserKey
	var k bpf.RedirectCellKey
	var v bpf.RedirectCell
	for it := a.objs.Cells.Iterate(); it.Next(&k, &v); {
		if uint32(k.Generation) == parity {
			cells = append(cells, k)
		}
	}
	var u bpf.RedirectUserKey
	var class uint16
	for it := a.objs.UserClasses.Iterate(); it.Next(&u, &class); {
		if u.Generation == parity {
			users = append(users, u)
		}
	}
	for _, k := range cells {
		if err := a.objs.Cells.Delete(k); err != nil {
			return fmt.Errorf("cgroupbpf: cells: %w", err)
		}
	}
	for _, u := range users {
		if err := a.objs.UserClasses.Delete(u); err != nil {
			return fmt.Errorf("cgroupbpf: user classes: %w", err)
		}
	}
	return nil
}
