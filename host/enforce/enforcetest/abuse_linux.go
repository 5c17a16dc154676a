package enforcetest

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// AbuseSize is how much abuse there is: a little, or a day's worth of it with CALLOUTD_ABUSE=full.
func AbuseSize() (processes, connections int) {
	if os.Getenv("CALLOUTD_ABUSE") == "full" {
		return 200, 100_000
	}
	return 10, 1000
}

// Abuse keeps that many processes running, each of which calls Begun and connects as
// fast as it can. Each is killed at some time after it has begun, and another one takes
// its place, until the standard input ends. It panics when one does not begin.
func Abuse(processes int, hammer func() *exec.Cmd) {
	enough := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(enough)
	}()
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	one := func() {
		c := hammer()
		begun, err := c.StdoutPipe()
		must(err)
		started := time.Now()
		must(c.Start())
		_, err = io.ReadFull(begun, make([]byte, 1))
		must(err)
		longest := time.Duration(20*processes)*time.Millisecond + 2*time.Since(started) // Else many do nothing but begin, and all on a slow machine.
		select {
		case <-time.After(rand.N(longest)):
		case <-enough:
		}
		must(c.Process.Kill())
		_ = c.Wait()
	}
	var slots sync.WaitGroup
	for range processes {
		slots.Go(func() {
			for {
				one()
				select {
				case <-enough:
					return
				default:
				}
			}
		})
	}
	slots.Wait()
}

// Begun says to Abuse that the process runs.
func Begun() { _, _ = os.Stdout.Write([]byte("b")) }

// Hammer calls Begun, and then goes to one destination after the other, for ever, each a
// network and an address: "udp4 192.0.2.1:53". It says something and resets the connection
// or, as often, waits until that ends.
func Hammer(destinations ...string) {
	Begun()
	for {
		for _, d := range destinations {
			network, address, _ := strings.Cut(d, " ")
			hit(network, netip.MustParseAddrPort(address))
		}
	}
}

func hit(network string, to netip.AddrPort) {
	kind := unix.SOCK_STREAM
	if strings.HasPrefix(network, "udp") {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	if unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}) != nil {
		return
	}
	if kind == unix.SOCK_STREAM && rand.IntN(2) == 0 {
		for n, b := 1, make([]byte, 64); n > 0; {
			n, _ = unix.Read(fd, b)
		}
		return
	}
	_, _ = unix.Write(fd, []byte("x"))
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // A reset.
}
