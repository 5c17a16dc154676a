// Package importer reads connections that other programs saw: what people have
// before they record anything.
package importer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Format is what a program writes.
type Format struct {
	Name string
	What string
	// Read gives each connection to found, whose error ends it. What is wrong with
	// the input is an *Error, or ErrCutOff.
	Read func(in io.Reader, found func(*flight.Entry) error) error
}

// Formats are all of them.
var Formats = []Format{
	{"strace", "strace -f (-ttt and -yy tell more)", readStrace},
	{"conntrack", "conntrack -L, also with -o extended", readConntrack},
	{"nftlog", "kernel log lines of nft's and iptables' log statements, and ulogd's", readNftLog},
	{"pcap", "pcap and pcapng: the SYNs", readPcap},
	{"netevents", "netsh wfp show netevents (XML)", readNetEvents},
}

// ErrCutOff says that the end of a capture is missing, as where tcpdump was killed. What
// there is was read.
var ErrCutOff = errors.New("the end is cut off")

// An Error is what is wrong with the input, and where.
type Error struct {
	Line int // of text, from 1; 0: it has no lines
	Unit int // of what has no lines: the packet, from 1
	Msg  string
}

func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
	}
	return fmt.Sprintf("packet %d: %s", e.Unit, e.Msg)
}

// maxLine bounds a line, or an element of XML, in bytes.
const maxLine = 1 << 20

// lines reads text, and refuses one in which there is nothing of the format at all.
func lines(in io.Reader, what string, read func(line string) (known bool, err error)) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLine)
	n, found := 0, false
	for s.Scan() {
		n++
		known, err := read(strings.TrimSpace(strings.TrimPrefix(s.Text(), "\ufeff"))) // an editor's byte order mark
		var e *Error
		if errors.As(err, &e) {
			e.Line = n
		}
		if err != nil {
			return err
		}
		found = found || known
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return &Error{Line: n + 1, Msg: fmt.Sprintf("the line is longer than %d bytes", maxLine)}
	case err != nil:
		return err
	case !found && n > 0:
		return &Error{Line: n, Msg: "not one line is " + what}
	}
	return nil
}

func bad(format string, args ...any) error { return &Error{Msg: fmt.Sprintf(format, args...)} }

// endpoint joins an address and a port as they are written.
func endpoint(addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, bad("%q is no address", addr)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, bad("%q is no port", port)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

// pair refuses ends that cannot be of one connection.
func pair(e *flight.Entry) error {
	if e.Local.IsValid() && e.Local.Addr().Is4() != e.Remote.Addr().Is4() {
		return bad("%s and %s are of two address families", e.Local.Addr(), e.Remote.Addr())
	}
	return nil
}

// carries reports whether a protocol has ports.
func carries(protocol uint8) bool {
	return protocol == fwps.ProtocolTCP || protocol == fwps.ProtocolUDP
}

// values reads words of the form KEY=VALUE. Of a key that stands twice the first
// counts: conntrack has the way back second.
func values(words []string) map[string]string {
	out := map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			if _, known := out[k]; !known {
				out[k] = v
			}
		}
	}
	return out
}
