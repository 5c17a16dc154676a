//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"net/netip"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// blocks is a policy with filters for other destinations than those of the benchmarks.
func blocks(n int) *fwpm.Policy {
	p := &fwpm.Policy{}
	for id := 1; id <= n; id++ {
		p.Filters = append(p.Filters, filter(id, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemoteAddress, fwp.Mask(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(id)}), 16)))))
	}
	return p
}

// BenchmarkConnect is connect() to a loopback server: without the programs, with
// a permit that the kernel gives, and with one that the engine gives.
func BenchmarkConnect(b *testing.B) {
	origin := greet(b, "tcp4", "127.0.0.1:0", "origin", nil).String()
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	for _, c := range []struct {
		name   string
		policy *fwpm.Policy
	}{{"plain", nil}, {"kernel", blocks(100)}, {"engine", &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}}} {
		b.Run(c.name, func(b *testing.B) {
			policy := c.policy
			if policy == nil {
				policy = new(fwpm.Policy)
			}
			var callout fwps.Callout
			if len(policy.Callouts) > 0 {
				callout = permit
			}
			s := newSite(b, policy, callout)
			if c.policy != nil {
				defer s.attach(b).Close()
			}
			ns, err := strconv.ParseFloat(s.run(b, strconv.Itoa(b.N), origin)[0], 64)
			require.NoError(b, err)
			b.ReportMetric(ns, "ns/connect")
		})
	}
}

// BenchmarkConnectPrograms is what each program takes, by the kernel's own account, of a
// connection that the kernel permits: its time on the clock varies by more than all of
// them take. socket_states and hold run several times for each; sock_create runs before
// connect().
func BenchmarkConnectPrograms(b *testing.B) {
	origin := greet(b, "tcp4", "127.0.0.1:0", "origin", nil).String()
	s := newSite(b, blocks(100), nil)
	a := s.attach(b)
	defer a.Close()
	nothing := s.nothing(b)
	account, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	s.run(b, strconv.Itoa(b.N), origin)
	require.NoError(b, account.Close())

	took := func(p *ebpf.Program) (ns, runs float64) {
		stats, err := p.Stats()
		require.NoError(b, err)
		return float64(stats.Runtime), float64(stats.RunCount)
	}
	ns, runs := took(nothing)
	require.NotZero(b, runs)
	accounting, sum := ns/runs, 0.0
	for _, h := range a.hooks() {
		ns, runs := took(h.prog)
		if runs == 0 {
			continue
		}
		each := (ns - runs*accounting) / float64(b.N)
		b.ReportMetric(each, h.name+"-ns/connect")
		if h.name != "sock_create" {
			sum += each
		}
	}
	b.ReportMetric(sum, "sum-ns/connect")
}

// nothing hooks in a program that does nothing, whose time is that of the account.
func (s *site) nothing(b *testing.B) *ebpf.Program {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "nothing", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	require.NoError(b, err)
	b.Cleanup(func() { _ = p.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: s.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: p})
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	return p
}
