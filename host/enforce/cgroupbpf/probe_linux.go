//go:build amd64 || arm64

package cgroupbpf

import (
	"bufio"
	"errors"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// Probe asks the running kernel for what Attach needs.
func Probe() []enforce.Capability {
	programs := probeProgram(ebpf.AttachCgroupInet4GetPeername)
	values := probeProgram(ebpf.AttachCGroupInet4Connect, asm.Mov.Imm(asm.R1, -int32(unix.EACCES)), asm.FnSetRetval.Call())
	hierarchy, pins := mounted("cgroup2"), mounted("bpf")
	cs := []enforce.Capability{
		{Name: "programs for cgroups", Need: enforce.Required, MinimumKernel: "5.8", Detail: "decides in the kernel"},
		{Name: "programs that choose the error", Need: enforce.Required, MinimumKernel: "5.18", Detail: "a block is EACCES"},
		{Name: "a cgroup v2 hierarchy", Need: enforce.Required, Detail: "names the processes" + at(hierarchy)},
		{Name: "a BPF file system", Need: enforce.Optional, Detail: "keeps what --pin pins" + at(pins)},
	}
	for i, err := range []error{programs, values, missing(hierarchy, "cgroup2"), missing(pins, "bpf")} {
		cs[i].Command = enforce.CommandAttach
		cs[i].Found(err)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM):
			cs[i].Remedy = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
		case i == 2:
			cs[i].Remedy = "as root, mount -t cgroup2 none /sys/fs/cgroup/unified"
		case i == 3:
			cs[i].Remedy = "as root, mount -t bpf none /sys/fs/bpf"
		}
	}
	return cs
}

// probeProgram loads a program that begins with body and permits.
func probeProgram(where ebpf.AttachType, body ...asm.Instruction) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: where, License: "GPL",
		Instructions: append(body, asm.Mov.Imm(asm.R0, 1), asm.Return())})
	if err != nil {
		return err
	}
	return p.Close()
}

// mounted is where a file system is mounted, empty if it is nowhere.
func mounted(kind string) string {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == kind {
			return fields[1]
		}
	}
	return ""
}

func at(dir string) string {
	if dir == "" {
		return ""
	}
	return " (" + dir + ")"
}

func missing(dir, kind string) error {
	if dir == "" {
		return errors.New("no file system of type " + kind + " is mounted")
	}
	return nil
}
