//go:build amd64 || arm64

package cgroupbpf

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
)

// capabilities are what Attach needs.
const capabilities = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"

// rights is EPERM if this thread has not what Attach needs. Without CAP_PERFMON the
// kernel itself says that it does not know what the programs call.
func rights() error {
	for _, bit := range []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON} {
		if !enforce.Capable(bit) && !enforce.Capable(unix.CAP_SYS_ADMIN) {
			return unix.EPERM
		}
	}
	return nil
}

// Probe asks the running kernel for what Attach needs.
func Probe() []enforce.Capability {
	programs := probeProgram(ebpf.AttachCgroupInet4GetPeername)
	values := probeProgram(ebpf.AttachCGroupInet4Connect, asm.Mov.Imm(asm.R1, -int32(unix.EACCES)), asm.FnSetRetval.Call())
	if err := rights(); err != nil {
		programs, values = err, err
	}
	hierarchy, noHierarchy := mounted("cgroup2")
	pins, noPins := mounted("bpf")
	cs := []enforce.Capability{
		{Name: "programs for cgroups", Need: enforce.Required, MinimumKernel: "5.8", Detail: "decides in the kernel"},
		{Name: "programs that choose the error", Need: enforce.Required, MinimumKernel: "5.18", Detail: "a block is EACCES"},
		{Name: "a cgroup v2 hierarchy", Need: enforce.Required, Detail: "names the processes" + at(hierarchy)},
		{Name: "a BPF file system", Need: enforce.Optional, Detail: "keeps what --pin pins" + at(pins)},
		{Name: "a kernel that describes itself (BTF)", Need: enforce.Optional, Detail: "decides by the user for whom a program acts, and not by the real one"},
		{Name: "the first PID namespace", Need: enforce.Required, Detail: "has the numbers that the kernel gives processes"},
	}
	for i, err := range []error{programs, values, noHierarchy, noPins, describesItself(), enforce.CheckNumbers()} {
		cs[i].Command = enforce.CommandAttach
		cs[i].Found(err)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM):
			cs[i].Why, cs[i].Remedy = "load program: "+unix.EPERM.Error(), enforce.MoreRights(capabilities)
		case errors.Is(err, fs.ErrNotExist):
			cs[i].Remedy = "as root, mount -t proc proc /proc"
		case i == 2:
			cs[i].Remedy = "as root, mount -t cgroup2 none /sys/fs/cgroup/unified"
		case i == 3:
			cs[i].Remedy = "as root, mount -t bpf none /sys/fs/bpf"
		case i == 4:
			cs[i].Remedy = "a kernel with CONFIG_DEBUG_INFO_BTF=y"
		case i == 5:
			if why, helps, ok := strings.Cut(cs[i].Why, ": run it "); ok {
				cs[i].Why, cs[i].Remedy = why, "run it "+helps
			}
		}
	}
	return append(cs, carry.Probe(enforce.CommandAttach, descriptorsOfAFlow))
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

// readsKernel reports whether programs may read the kernel's memory, which lockdown
// (confidentiality) forbids.
func readsKernel() bool {
	return probeProgram(ebpf.AttachCGroupInet6Connect, asm.Mov.Reg(asm.R1, asm.R10), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Imm(asm.R3, 0), asm.FnProbeReadKernel.Call()) == nil
}

// withoutLinks has no program read it: connects to addresses of a link that need an answer
// are refused.
func withoutLinks(spec *ebpf.CollectionSpec) {
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if in := &p.Instructions[i]; in.IsBuiltinCall() && asm.BuiltinFunc(in.Constant) == asm.FnProbeReadKernel {
				*in = asm.Mov.Imm(asm.R0, -1).WithMetadata(in.Metadata)
			}
		}
	}
}

// describesItself is nil if the kernel says how its structures are (BTF), and lets programs
// read by that.
func describesItself() error {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return err
	}
	return probeProgram(ebpf.AttachCGroupInet4Connect, asm.FnGetCurrentTaskBtf.Call())
}

// withoutTypes has no program read by the kernel's types: a user is the real one.
func withoutTypes(spec *ebpf.CollectionSpec) {
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			in := &p.Instructions[i]
			if in.IsBuiltinCall() && asm.BuiltinFunc(in.Constant) == asm.FnGetCurrentTaskBtf {
				*in = asm.Mov.Imm(asm.R0, 0).WithMetadata(in.Metadata)
			}
			if btf.CORERelocationMetadata(in) != nil {
				*in = btf.WithCORERelocationMetadata(*in, nil)
			}
		}
	}
}

// mounted is where a file system is mounted.
func mounted(kind string) (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == kind {
			return fields[1], nil
		}
	}
	return "", errors.New("no file system of type " + kind + " is mounted")
}

func at(dir string) string {
	if dir == "" {
		return ""
	}
	return " (" + dir + ")"
}
