package importer

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// readConntrack reads the table of connections: for each the way there counts.
func readConntrack(in io.Reader, found func(*flight.Entry) error) error {
	return lines(in, "of conntrack -L", func(line string) (bool, error) {
		words := strings.Fields(line)
		v := values(words)
		if v["src"] == "" && v["dst"] == "" { // The last line counts the others.
			return strings.HasPrefix(line, "conntrack v"), nil
		}
		at := 1 // protocol, its number
		if words[0] == "ipv4" || words[0] == "ipv6" {
			at = 3 // of -o extended: before them the family
		}
		if len(words) <= at {
			return true, bad("the number of the protocol is missing")
		}
		protocol, err := strconv.ParseUint(words[at], 10, 8)
		if err != nil {
			return true, bad("%q is no number of a protocol", words[at])
		}
		return true, flow(uint8(protocol), v["src"], v["sport"], v["dst"], v["dport"], found)
	})
}

// flow is a connection seen on its way, of which nobody knows the program.
func flow(protocol uint8, src, sport, dst, dport string, found func(*flight.Entry) error) error {
	if !carries(protocol) {
		return nil // ICMP and others: no program connects.
	}
	local, err := endpoint(src, sport)
	if err != nil {
		return err
	}
	remote, err := endpoint(dst, dport)
	if err != nil {
		return err
	}
	e := &flight.Entry{Protocol: protocol, Local: local, Remote: remote}
	if err := pair(e); err != nil {
		return err
	}
	return found(e)
}

var protocols = map[string]uint8{"TCP": fwps.ProtocolTCP, "UDP": fwps.ProtocolUDP}

// readNftLog reads what the kernel logs of packets: new connections only, which
// are SYNs and datagrams.
func readNftLog(in io.Reader, found func(*flight.Entry) error) error {
	return lines(in, "of a log statement: SRC= and DST= are missing", func(line string) (bool, error) {
		words := strings.Fields(line)
		v := values(words)
		if v["SRC"] == "" && v["DST"] == "" {
			return false, nil
		}
		protocol, known := protocols[v["PROTO"]]
		tcp := protocol == fwps.ProtocolTCP
		if !known || tcp && (!slices.Contains(words, "SYN") || slices.Contains(words, "ACK")) {
			return true, nil
		}
		return true, flow(protocol, v["SRC"], v["SPT"], v["DST"], v["DPT"], func(e *flight.Entry) error {
			if v["OUT"] == "" && v["IN"] != "" {
				e.Inbound, e.Local, e.Remote = true, e.Remote, e.Local
			}
			if v["UID"] != "" { // of nft's flags skuid
				n, err := strconv.ParseUint(v["UID"], 10, 32)
				if err != nil {
					return bad("UID %q is no number of a user", v["UID"])
				}
				e.User, e.UserKnown = uint32(n), true
			}
			return found(e)
		})
	})
}
