//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A program's connect is redirected, whatever its family, and it believes to be
// where it wanted to go; the proxy finds the records.
func TestCalloutRedirects(t *testing.T) {
	contexts, ready := make(chan string, 8), make(chan struct{})
	var s *site
	accepted := func(c *net.TCPConn) {
		<-ready // What the program's connect tells goes through the kernel, where Go does not see it.
		f, err := s.ale.Accept(context.Background(), fwps.Incoming{Protocol: fwps.ProtocolTCP,
			Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()})
		if err != nil || len(f.Records) == 0 {
			contexts <- fmt.Sprint("no records: ", err)
			return
		}
		contexts <- string(f.Records.Last().Context) + " " + f.Original.String()
		f.Close()
	}
	p4, p6 := greet(t, "tcp4", "127.0.0.1:0", "proxy", accepted), greet(t, "tcp6", "[::1]:0", "proxy", accepted)
	s = newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, redirecting(func(v6 bool) netip.AddrPort {
		if v6 {
			return p6
		}
		return p4
	}))
	close(ready)
	defer s.attach(t).Close()
	for _, to := range []string{"198.51.100.7:80", "[2001:db8::7]:80"} {
		require.Equal(t, []string{"proxy from " + to}, s.run(t, "tcp/"+to))
		require.Equal(t, "for the proxy "+to, <-contexts)
	}
}

func TestStaticFilters(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	dns, other := greet(t, "udp4", "127.0.0.1:0", "answer", nil), greet(t, "udp4", "127.0.0.1:0", "other", nil)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{
		filter(1, authConnect, fwp.ActionBlock, port(25)),
		filter(2, authConnect, fwp.ActionBlock, port(other.Port()), condition(fwpm.ConditionIPProtocol, fwp.U8(fwps.ProtocolUDP))), // origin's may be the same.
		filter(3, fwpm.LayerALEAuthConnectV6, fwp.ActionBlock, port(4444), condition(fwpm.ConditionALEAppID, fwp.Blob("/bin/x"))),
	}}, nil)
	defer s.attach(t).Close()
	got := s.run(t, "tcp/"+origin.String(), "tcp/127.0.0.1:25", "udp/"+dns.String(), "udp/"+other.String(), "udp/[::1]:4444")
	require.Equal(t, []string{"origin from " + origin.String(), "EACCES", "answer from " + dns.String(), "EACCES", "EACCES"}, got)
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) >= 3 }, time.Minute, time.Millisecond)
	denials, asked := s.told()
	require.Zero(t, asked, "the kernel decides by itself")
	require.Contains(t, denials[0], `blocked at ALE_AUTH_CONNECT_V4 by filter 1 "f" (ARB-01)`)
	require.Contains(t, denials[2], "only the program's path or the address that it leaves by can decide it, and that works in a cgroup for TCP")
}

// Of a program that has ended before anybody could look, its account has what the kernel
// knows, marked as that.
func TestProgramsThatHaveEnded(t *testing.T) {
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(25))}}, nil)
	var who []string
	ended := make(chan struct{})
	s.opts.OnBlocked = func(d enforce.Denial) {
		<-ended
		who = append(who, d.AppID)
	}
	a := s.attach(t)
	require.Equal(t, []string{"EACCES", "EACCES"}, s.run(t, "tcp/127.0.0.1:25", "udp/127.0.0.1:25"))
	close(ended)
	require.NoError(t, a.Close())
	require.Len(t, who, 2)
	name := filepath.Base(os.Args[0])
	require.Equal(t, fmt.Sprintf("[%s, user 0, ended]", name[:min(len(name), 15)]), who[1])
}

// What only the engine can decide and it blocks ends in a reset.
func TestEngineBlocks(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{
		filter(1, authConnect, fwp.ActionBlock, port(origin.Port()), condition(fwpm.ConditionALEAppID, fwp.Blob(exe))),
	}}, nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ECONNRESET"}, s.run(t, "tcp/"+origin.String()))
	denials, _ := s.told()
	require.Len(t, denials, 1)
	require.Contains(t, denials[0], `by filter 1 "f"`)
}

// A connection to the daemon's port that the kernel did not send is refused.
func TestStrangerIsRefused(t *testing.T) {
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, redirecting(func(bool) netip.AddrPort { return netip.AddrPort{} }))
	a := s.attach(t)
	defer a.Close()
	require.Equal(t, "ECONNRESET", try("tcp", own(a).listen[ip4].Addr().String()))
}

func TestUpdate(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, new(fwpm.Policy), nil)
	a := s.attach(t)
	defer a.Close()
	for _, blocked := range []bool{false, true, false, true} {
		p, want := new(fwpm.Policy), "origin from "+origin.String()
		if blocked {
			p.Filters, want = []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(origin.Port()))}, "EACCES"
		}
		require.NoError(t, a.Update(p))
		require.Equal(t, []string{want}, s.run(t, "tcp/"+origin.String()))
	}
}

// Programs that somebody else attached go on working; both must permit.
func TestCoexists(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, new(fwpm.Policy), nil)
	deny, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	require.NoError(t, err)
	defer deny.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: s.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: deny})
	require.NoError(t, err)
	a := s.attach(t)
	require.Equal(t, []string{"EPERM"}, s.run(t, "tcp/"+origin.String()))
	require.NoError(t, l.Close())
	require.Equal(t, []string{"origin from " + origin.String()}, s.run(t, "tcp/"+origin.String()))
	require.NoError(t, a.Close())
	require.Equal(t, []string{"origin from " + origin.String()}, s.run(t, "tcp/"+origin.String()), "nothing is left")
}

// Many connections at once lose nothing, and leave no record behind.
func TestManyAtOnce(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	a := s.attach(t)
	defer a.Close()
	args := make([]string, 100)
	for i := range args {
		args[i] = "tcp/" + origin.String()
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, line := range s.run(t, args...) {
				if line != "origin from "+origin.String() {
					t.Error(line)
				}
			}
		})
	}
	wg.Wait()
	var k [40]byte
	require.ErrorIs(t, a.objs.Waiting.NextKey(nil, &k), ebpf.ErrKeyNotExist)
}

// What a program sends and forgets arrives, although it has closed the connection, or
// ended, before it is accepted.
func TestFireAndForget(t *testing.T) {
	const n = 200
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	got := make(chan string, n)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Close()
			got <- string(b)
		}
	}()
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	a := s.attach(t)
	defer a.Close()
	require.Equal(t, []string{"ok"}, s.run(t, fmt.Sprintf("throws%d/%s", n, l.Addr())))
	for range n {
		require.Equal(t, "x", <-got)
	}
	var k [40]byte
	require.ErrorIs(t, a.objs.Waiting.NextKey(nil, &k), ebpf.ErrKeyNotExist)
}

// What the tests above need is what Probe finds.
func TestProbe(t *testing.T) {
	newSite(t, &fwpm.Policy{}, nil) // Skips where it cannot work.
	cs := Probe()
	require.NoError(t, enforce.Missing(cs, enforce.CommandAttach))
	for _, c := range cs {
		require.NotEmpty(t, c.Detail)
		require.Equal(t, c.Supported, c.Why == "", c.Name)
	}
}

func TestOnlyCgroupsHavePrograms(t *testing.T) {
	opts := Options{ALE: ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)}), Policy: new(fwpm.Policy)}
	opts.Cgroup = t.TempDir()
	_, err := Attach(t.Context(), opts)
	require.ErrorContains(t, err, opts.Cgroup+" is in no cgroup v2 hierarchy")
	opts.Cgroup += "/none"
	_, err = Attach(t.Context(), opts)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
