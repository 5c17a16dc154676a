package importer

import (
	"errors"
	"io"
	"maps"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// A process is what the calls before said of it.
type process struct {
	program string
	own     bool             // it began its program itself: it is not its parent's
	exec    string           // that was begun and not yet seen to succeed
	sockets map[string]uint8 // protocols, by descriptor
}

// These bound what is remembered of a log. A child has the sockets of its parent.
const (
	maxProcesses = 1 << 16
	maxSockets   = 1 << 18
	maxOfProcess = 1 << 12 // sockets of one process: with each child they are copied
)

// A strace reads the log of strace -f.
type strace struct {
	found     func(*flight.Entry) error
	processes map[string]*process
	sockets   int // of all processes
}

var (
	// A line begins with the process, if it is one of several, and a time, if
	// strace was asked for it.
	stracePrefix = regexp.MustCompile(`^(?:\[pid\s+(\d+)\]\s+|(\d+)\s+)?(?:(\d+\.\d+|\d\d:\d\d:\d\d(?:\.\d+)?)\s+)?`)
	straceCall   = regexp.MustCompile(`^(\w+)\((.*)$`)
	straceDone   = regexp.MustCompile(`^<\.\.\. (\w+) resumed>(.*)$`)
	straceInet   = regexp.MustCompile(`sa_family=AF_INET, sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]*)"\)`)
	straceInet6  = regexp.MustCompile(`sa_family=AF_INET6, sin6_port=htons\((\d+)\),.*?inet_pton\(AF_INET6, "([^"]*)"`)
	straceFD     = regexp.MustCompile(`^(\d+)(?:<(TCP|UDP|TCPv6|UDPv6):)?`)
	straceResult = regexp.MustCompile(`\)\s*= (-?\d+)`)
)

func readStrace(in io.Reader, found func(*flight.Entry) error) error {
	s := strace{found: found, processes: map[string]*process{}}
	return lines(in, "of strace -f", s.line)
}

func (s *strace) of(pid string) *process {
	p := s.processes[pid]
	if p == nil {
		if len(s.processes) >= maxProcesses || s.sockets >= maxSockets {
			clear(s.processes)
			s.sockets = 0
		}
		p = &process{sockets: map[string]uint8{}}
		s.processes[pid] = p
		if only := s.processes[""]; only != nil { // strace does not number a process while it is the only one.
			s.inherit(p, only)
		}
	}
	return p
}

// inherit gives a process what its parent has.
func (s *strace) inherit(child, parent *process) {
	if !child.own {
		child.program = parent.program
	}
	if len(child.sockets) == 0 {
		maps.Copy(child.sockets, parent.sockets)
		s.sockets += len(child.sockets)
	}
}

// forget makes room for another process of the same number.
func (s *strace) forget(pid string) {
	if p := s.processes[pid]; p != nil {
		delete(s.processes, pid)
		s.sockets -= len(p.sockets)
	}
}

func (s *strace) line(line string) (known bool, err error) {
	prefix := stracePrefix.FindStringSubmatch(line)
	pid, rest := prefix[1]+prefix[2], line[len(prefix[0]):]
	p := s.of(pid)
	if m := straceDone.FindStringSubmatch(rest); m != nil {
		s.resumed(p, m[1], result(m[2]))
		return true, nil
	}
	m := straceCall.FindStringSubmatch(rest)
	if m == nil {
		if strings.HasPrefix(rest, "+++ exited") || strings.HasPrefix(rest, "+++ killed") {
			s.forget(pid)
		}
		return strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---"), nil
	}
	call, args := m[1], m[2]
	switch call {
	case "execve":
		p.exec = quoted(args)
		s.resumed(p, call, result(args))
	case "clone", "clone3", "fork", "vfork":
		s.resumed(p, call, result(args))
	case "socket":
		s.socket(p, args)
	case "connect", "sendto", "sendmsg":
		return true, s.connects(p, pid, prefix[3], call, args)
	}
	return true, nil
}

// result is what a call returned, -1 if it is not over.
func result(args string) int64 {
	m := straceResult.FindAllStringSubmatch(args, -1)
	if m == nil {
		return -1
	}
	n, err := strconv.ParseInt(m[len(m)-1][1], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// quoted is the first text of the arguments.
func quoted(args string) string {
	at := strings.IndexByte(args, '"')
	if at < 0 {
		return ""
	}
	q, err := strconv.QuotedPrefix(args[at:])
	if err != nil {
		return ""
	}
	text, _ := strconv.Unquote(q)
	return text
}

// resumed is a call that came to its end.
func (s *strace) resumed(p *process, call string, result int64) {
	switch {
	case call == "execve" && result == 0:
		p.program, p.exec, p.own = p.exec, "", true
	case result > 0 && (strings.HasPrefix(call, "clone") || strings.HasSuffix(call, "fork")):
		s.inherit(s.of(strconv.FormatInt(result, 10)), p)
	}
}

// socket remembers one that was made.
func (s *strace) socket(p *process, args string) {
	fd, before := result(args), len(p.sockets)
	switch {
	case fd < 0 || before >= maxOfProcess:
	case strings.Contains(args, "SOCK_STREAM"):
		p.sockets[strconv.FormatInt(fd, 10)] = fwps.ProtocolTCP
	case strings.Contains(args, "SOCK_DGRAM"):
		p.sockets[strconv.FormatInt(fd, 10)] = fwps.ProtocolUDP
	}
	s.sockets += len(p.sockets) - before
}

// connects is a call with an address. It counts whatever it returned: what a
// policy decides is whether it may be tried.
func (s *strace) connects(p *process, pid, at, call, args string) error {
	m := straceInet.FindStringSubmatch(args)
	if m == nil {
		m = straceInet6.FindStringSubmatch(args)
	}
	if m == nil {
		if strings.Contains(args, "sa_family=AF_INET") {
			return bad("%s: its address cannot be read", call)
		}
		return nil
	}
	to, err := endpoint(m[2], m[1])
	if err != nil {
		return err
	}
	e := &flight.Entry{Program: p.program, Remote: to, Protocol: p.protocol(args, call)}
	if e.Time, err = epoch(at); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(pid, 10, 32); err == nil {
		e.Process = uint32(n)
	}
	if to.Port() == 0 { // A datagram socket forgets its peer, or a library asks for a route.
		return nil
	}
	return s.found(e)
}

// protocol is that of a call's socket: as strace -yy says, as the socket was
// made, or the usual one.
func (p *process) protocol(args, call string) uint8 {
	m := straceFD.FindStringSubmatch(args)
	switch {
	case m != nil && strings.HasPrefix(m[2], "TCP"):
		return fwps.ProtocolTCP
	case m != nil && strings.HasPrefix(m[2], "UDP"):
		return fwps.ProtocolUDP
	case m != nil && p.sockets[m[1]] != 0:
		return p.sockets[m[1]]
	case call == "connect":
		return fwps.ProtocolTCP
	}
	return fwps.ProtocolUDP
}

var errTime = errors.New("no time")

// epoch reads the time of -ttt. A time of day has no date: it is left out.
func epoch(s string) (time.Time, error) {
	if s == "" || strings.Contains(s, ":") {
		return time.Time{}, nil
	}
	t, err := seconds(s)
	if err != nil {
		return t, bad("%q is no time", s)
	}
	return t, nil
}

// seconds reads a time as seconds since 1970 with a fraction.
func seconds(s string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec < 0 || sec > math.MaxInt64/int64(time.Second)-1 {
		return time.Time{}, errTime
	}
	ns, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, errTime
	}
	return time.Unix(sec, ns), nil
}
