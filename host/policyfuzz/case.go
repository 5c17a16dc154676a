package policyfuzz

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/oneline"
)

// Begin is how a file of cases for a policy begins.
func Begin(policy string) string {
	return "# Connections that calloutd fuzz found; they stay as tests when the policy is right.\nversion: 1\npolicy: " + strconv.Quote(policy) + "\ncases:\n"
}

// Case is a finding as a case of such a file, with what is not ordinary of its
// connection.
func (f *Finding) Case() string {
	in, to := f.In, f.In.Remote
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    # %s\n", strconv.Quote(f.Title()), oneline.Clean(f.Fault.String()))
	if in.Inbound {
		fmt.Fprintf(&b, "    inbound: true\n    from: %q\n", in.Remote)
		to = in.Local
	}
	fmt.Fprintf(&b, "    to: %q\n", to)
	switch in.AppID {
	case ordinaryProgram:
	case "":
		b.WriteString("    program: unknown\n")
	default:
		fmt.Fprintf(&b, "    program: %s\n", strconv.Quote(in.AppID))
	}
	switch {
	case !in.UserKnown:
		b.WriteString("    user: unknown\n")
	case in.UserID != ordinaryUser:
		fmt.Fprintf(&b, "    user: %d\n", in.UserID)
	}
	switch in.Protocol {
	case fwps.ProtocolTCP:
	case fwps.ProtocolUDP:
		b.WriteString("    protocol: udp\n")
	default:
		fmt.Fprintf(&b, "    protocol: %d\n", in.Protocol)
	}
	if name := in.Other[fwpm.ConditionPeerName].Text; name != "" {
		fmt.Fprintf(&b, "    peer_name: %s\n", strconv.Quote(name))
	}
	if luid, known := in.Other[fwpm.ConditionIPLocalInterface]; known {
		fmt.Fprintf(&b, "    interface: %d\n", luid.Uint)
	}
	b.WriteString("    expect: {sound: true}\n")
	return b.String()
}

// Title names a finding, the same each time it is found.
func (f *Finding) Title() string {
	if f.Who == "" {
		return "fuzz: " + string(f.Kind)
	}
	return fmt.Sprintf("fuzz: %s %s", f.Kind, f.Who)
}
