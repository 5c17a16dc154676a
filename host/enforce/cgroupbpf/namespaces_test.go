//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/netspace"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// up makes loopback of the helper's network namespace work.
func up() string {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err.Error()
	}
	return "up"
}

// patiently tries until calloutd listens in the namespace, which it may not do in time
// on a machine that is busy. Up to then everything is refused.
func patiently(network, to string) string {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if said := try(network, to); !strings.Contains(said, "EACCES") || time.Now().After(end) {
			return said
		}
	}
}

// left is a socket of a network namespace that no thread is in any more.
var left = -1

func leave() string {
	inode := uint64(0)
	onOtherThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err == nil && up() == "up" {
			left, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			inode, _ = inodeOf("/proc/thread-self/ns/net")
		}
	})
	for there := true; there; {
		there = false
		spaces, _ := filepath.Glob("/proc/self/task/*/ns/net")
		for _, path := range spaces {
			at, err := inodeOf(path)
			there = there || err == nil && at == inode
		}
	}
	return "left"
}

func withLeft(to string) string {
	a := netip.MustParseAddrPort(to)
	patient(uintptr(left))
	err := unix.Connect(left, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())})
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprint("connected: ", err)
}

// onOtherThread runs f on a thread that ends then, so not on the first one.
func onOtherThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Never unlocked.
		if unix.Gettid() == os.Getpid() {
			onOtherThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// cookies are the network namespaces that the kernel knows homes in.
func cookies(t *testing.T, a *Attachment) (all []uint64) {
	var netns uint64
	var h bpf.RedirectHome
	it := a.objs.Homes.Iterate()
	for it.Next(&netns, &h) {
		all = append(all, netns)
	}
	require.NoError(t, it.Err())
	return all
}

// A program in another network namespace is redirected to the proxies that are in
// calloutd's, by TCP and UDP of both families, and believes to be where it wanted to go.
func TestRedirectsFromAnotherNamespace(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	const w4, w6, d4, d6 = "198.51.100.7:80", "[2001:db8:2::7]:80", "203.0.113.10:53", "[2001:db8:1::10]:53"
	var args, want []string
	for _, to := range []string{"tcp/" + w4, "tcp/" + w6, "udp/" + d4, "udp/" + d6, "sends/" + d4, "sends/" + d6} {
		network, at, _ := strings.Cut(to, "/")
		answer := network + " from " + at
		if network == "sends" {
			answer = "udp from " + at + ", udp from " + at
		}
		args, want = append(args, "patiently/"+to), append(want, answer)
	}
	require.Equal(t, append([]string{"up"}, want...), s.start(t, unix.CLONE_NEWNET, append([]string{"up/"}, args...)...).end())
	require.Eventually(t, func() bool { return len(cookies(t, a)) == 1 }, time.Minute, time.Millisecond, "nobody is in it any more")
	require.Len(t, a.allHomes(), 1)
}

// namespaceSite redirects all but loopback to proxies of this process's network
// namespace, which say their network, and permits the rest by a callout.
func namespaceSite(t testing.TB) *site {
	proxies := map[string]netip.AddrPort{}
	for network, at := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		proxies[network] = greet(t, network, at, network[:3], nil)
	}
	callout := fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		to := c.In.Remote.Addr()
		if to.Unmap().IsLoopback() {
			return nil
		}
		network := map[uint8]string{fwps.ProtocolTCP: "tcp", fwps.ProtocolUDP: "udp"}[c.In.Protocol] + map[bool]string{true: "4", false: "6"}[to.Unmap().Is4()]
		v.Redirect, v.To, v.TargetPID = true, proxies[network], uint32(os.Getpid())
		return nil
	})
	return newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, callout)
}

// What a callout permits is reached where the program is: its loopback is another one.
func TestPermitsIntoTheProgramsNamespace(t *testing.T) {
	s := namespaceSite(t)
	networks := []struct{ network, at string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}}
	here, args, want := map[string]string{}, []string{"up/", "stdin/"}, []string{"told"}
	for _, n := range networks {
		here[n.network] = greet(t, n.network, n.at, "calloutd's", nil).String()
		args, want = append(args, "patiently/"+n.network+"/"+here[n.network]), append(want, "its from "+here[n.network])
	}
	defer s.attach(t).Close()
	h := s.start(t, unix.CLONE_NEWNET, append(args, "patiently/tcp/127.0.0.1:9", "patiently/udp/127.0.0.1:9")...)
	require.Equal(t, "up", h.line())
	for _, n := range networks {
		h.greet(n.network, here[n.network], "its")
	}
	require.Equal(t, append(want, "ECONNRESET", "ECONNREFUSED"), h.end())
	require.Equal(t, []string{"calloutd's from " + here["tcp4"]}, s.run(t, "tcp/"+here["tcp4"]), "and this one's from here")
}

// greet serves where the helper is, but is not of its cgroup.
func (h *helper) greet(network, at, word string) {
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid))
	require.NoError(h.t, err)
	defer space.Close()
	require.NoError(h.t, netspace.Within(int(space.Fd()), func() error { greet(h.t, network, at, word, nil); return nil }))
}

// Namespaces with programs before the attachment are known when it begins.
func TestNamespacesThatAreThereBefore(t *testing.T) {
	s := namespaceSite(t)
	h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/", "tcp/198.51.100.7:80")
	require.Equal(t, "up", h.line())
	a := s.attach(t)
	defer a.Close()
	require.Len(t, cookies(t, a), 2)
	require.Equal(t, []string{"told", "tcp from 198.51.100.7:80"}, h.end())
}

// Programs of two namespaces have the same address, and each its own record.
func TestSameAddressInTwoNamespaces(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	var helpers []*helper
	for _, to := range []string{"198.51.100.7:80", "127.0.0.1:8080"} {
		h := s.start(t, unix.CLONE_NEWNET, "up/", "patiently/udp/203.0.113.10:53", "stdin/", "tcp@127.0.0.1:40000/"+to)
		for _, want := range []string{"up", "udp from 203.0.113.10:53"} {
			require.Equal(t, want, h.line())
		}
		h.greet("tcp4", "127.0.0.1:8080", "its")
		helpers = append(helpers, h)
	}
	for _, h := range helpers {
		h.stdin.Close()
	}
	require.Equal(t, []string{"told", "tcp from 198.51.100.7:80"}, helpers[0].end())
	require.Equal(t, []string{"told", "its from 127.0.0.1:8080"}, helpers[1].end())
}

// The first socket in a namespace is enough for calloutd to come: who connects then
// waits for nothing.
func TestSocketAnnouncesItsNamespace(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, unix.CLONE_NEWNET, "up/", "socket/", "stdin/", "tcp/198.51.100.7:80")
	require.Equal(t, "up", h.line())
	require.Equal(t, "made", h.line())
	require.Eventually(t, func() bool { return len(a.allHomes()) == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, []string{"told", "tcp from 198.51.100.7:80"}, h.end())
}

// held is how many connections wait for calloutd.
func held(t *testing.T, a *Attachment) (n int) {
	var at bpf.RedirectSource
	var r bpf.RedirectRecord
	it := a.objs.Waiting.Iterate()
	for it.Next(&at, &r) {
		if r.Held != 0 {
			n++
		}
	}
	require.NoError(t, it.Err())
	return n
}

// late keeps calloutd from entering namespaces until what it returns is called.
func late(a *Attachment) (come func()) {
	a.visiting.Lock()
	return sync.OnceFunc(a.visiting.Unlock)
}

// The first connection in a namespace waits for calloutd, however late it comes.
func TestFirstConnectionIsHeld(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	come := late(a)
	defer come()
	four := s.start(t, unix.CLONE_NEWNET, "up/", "tcp/198.51.100.7:80")
	six := s.start(t, unix.CLONE_NEWNET, "up/", "tcp/[2001:db8:2::7]:80")
	require.Eventually(t, func() bool { return held(t, a) == 2 }, time.Minute, time.Millisecond)
	_, asked := s.told()
	require.Zero(t, asked)
	come()
	require.Equal(t, []string{"up", "tcp from 198.51.100.7:80"}, four.end())
	require.Equal(t, []string{"up", "tcp from [2001:db8:2::7]:80"}, six.end())
	denials, _ := s.told()
	require.Empty(t, denials)
}

// What waits reaches nobody else who listens where calloutd would have.
func TestHeldWhereSomebodyElseListens(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/", "tcp/198.51.100.7:80", "tcp/198.51.100.7:80")
	require.Equal(t, "up", h.line())
	h.greet("tcp4", netip.AddrPortFrom(loopbacks[ip4], swap(a.ports[ip4])).String(), "its")
	come := late(a)
	defer come()
	h.stdin.Close()
	require.Eventually(t, func() bool { return held(t, a) == 1 }, time.Minute, time.Millisecond)
	come()
	require.Equal(t, []string{"told", "ETIMEDOUT", "tcp from 198.51.100.7:80"}, h.end(), "the next one goes where calloutd is")
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 1 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], "somebody else listens")
}

// A namespace without loopback has nowhere to listen in: what needs an answer is
// refused, and the reason says so.
func TestNamespaceWithoutLoopback(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	h := s.start(t, unix.CLONE_NEWNET, "tcp/198.51.100.7:80", "udp/203.0.113.10:53", "sends/[2001:db8:1::10]:53", "stdin/")
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 4 }, time.Minute, time.Millisecond)
	said := h.end()
	require.Contains(t, []string{"EACCES", "ENETUNREACH"}, said[0], "ENETUNREACH if calloutd was late to say so")
	require.Equal(t, []string{"EACCES", "EACCES, EACCES", "told"}, said[1:])
	denials, asked := s.told()
	require.Zero(t, asked)
	require.Contains(t, strings.Join(denials, "\n"), "calloutd cannot listen in its network namespace: its loopback is down")
}

// A socket of a namespace that none of the cgroup's programs is in goes nowhere.
func TestSocketOfNobodysNamespace(t *testing.T) {
	s := namespaceSite(t)
	h := s.start(t, 0, "leave/", "stdin/", "with left/198.51.100.7:80")
	require.Equal(t, "left", h.line())
	a := s.attach(t)
	defer a.Close()
	come := late(a)
	defer come()
	h.stdin.Close()
	require.Eventually(t, func() bool { return held(t, a) == 1 }, time.Minute, time.Millisecond)
	come()
	require.Equal(t, []string{"told", "ETIMEDOUT"}, h.end(), "EACCES if calloutd had been there to say so")
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 1 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], errNowhere.Error())
}

// When the kernel has no room for another namespace, what needs an answer there is
// refused; the rest of the policy is in force in it.
func TestTooManyNamespaces(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	defer a.Close()
	for n := uint64(1); ; n++ {
		if err := a.objs.Homes.Put(n<<40, bpf.RedirectHome{Tcp4: 1}); err != nil {
			require.ErrorIs(t, err, unix.E2BIG)
			break
		}
	}
	h := s.start(t, unix.CLONE_NEWNET, "up/", "tcp/198.51.100.7:80", "udp/203.0.113.10:53", "stdin/")
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, []string{"up", "EACCES", "EACCES", "told"}, h.end())
	denials, _ := s.told()
	require.Contains(t, denials[0], "where calloutd listens: ")
}

// Without calloutd a namespace that it does not know is refused, and without waiting
// each time.
func TestNamespaceWithoutDaemon(t *testing.T) {
	s := namespaceSite(t)
	s.pin(t)
	require.NoError(t, s.attach(t).Close())
	defer func() { require.NoError(t, Detach(s.cgroup, s.opts.PinDir)) }()
	require.Equal(t, []string{"up", "EACCES", "EACCES"}, s.start(t, unix.CLONE_NEWNET, "up/", "tcp/198.51.100.7:80", "udp/203.0.113.10:53").end())
	a := s.attach(t)
	defer a.Close()
	require.Equal(t, []string{"up", "tcp from 198.51.100.7:80"}, s.start(t, unix.CLONE_NEWNET, "up/", "patiently/tcp/198.51.100.7:80").end())
}

// A namespace that several look into at once is entered once: nobody would leave it the
// second time, and Close would wait for ever.
func TestNamespaceIsEnteredOnce(t *testing.T) {
	s := namespaceSite(t)
	a := s.attach(t)
	h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/")
	require.Equal(t, "up", h.line())
	var wg sync.WaitGroup
	for range 8 { // As it does when it begins and when the cgroup is made again.
		wg.Go(a.settle)
	}
	wg.Wait()
	require.Len(t, a.allHomes(), 2)
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	require.Equal(t, []string{"told"}, h.end())
}
