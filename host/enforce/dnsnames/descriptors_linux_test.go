package dnsnames

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// A connection that cannot be accepted for want of a descriptor waits, and takes no
// processor meanwhile.
func TestWithoutDescriptors(t *testing.T) {
	var wants enforcetest.Wants
	s := newSite(t, Options{Resolver: resolver(t, false), Logf: wants.Logf}, false)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	restore := enforcetest.WithoutDescriptors()
	defer func() { restore() }()
	require.NoError(t, syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(s.proxy.Addr().Port()), Addr: s.proxy.Addr().Addr().As4()}))
	wants.Patient(t)
	restore()
	c, err := net.FileConn(f)
	require.NoError(t, err)
	defer c.Close()
	r, _, err := (&dns.Client{Timeout: time.Minute}).ExchangeWithConn(new(dns.Msg).SetQuestion("app.example.", dns.TypeA), &dns.Conn{Conn: c})
	require.NoError(t, err)
	require.Len(t, r.Answer, 1)
}
