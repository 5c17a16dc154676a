package policyfile

import (
	"os/user"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
)

// who is the security descriptor that lets somebody match: a user of the system
// by name or number, a group, a SID, or what SDDL says. The zero value is nobody.
func who(s string) fwp.Value {
	if sd, err := descriptor(s); err != nil {
		return fwp.Value{}
	} else if sd != nil {
		return fwp.Value{Type: fwp.SecurityDescriptorType, SD: sd}
	}
	sid := fwp.SID(s)
	if name, group := strings.CutPrefix(s, "group:"); group {
		sid = groupSID(name)
	} else if !sid.Valid() {
		sid = userSID(s)
	}
	if !sid.Valid() {
		return fwp.Value{}
	}
	return fwp.Allow(sid)
}

// descriptor reads SDDL, which no user is called as; nil is something else.
func descriptor(s string) (*fwp.SecurityDescriptor, error) {
	if !strings.Contains(s, ":") || strings.HasPrefix(s, "group:") {
		return nil, nil
	}
	return fwp.ParseSecurityDescriptor(s)
}

func userSID(s string) fwp.SID {
	if u, err := user.Lookup(s); err == nil {
		s = u.Uid // On Windows a SID.
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return fwp.UserSID(uint32(n))
	}
	return fwp.SID(s)
}

func groupSID(s string) fwp.SID {
	if g, err := user.LookupGroup(s); err == nil {
		s = g.Gid
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return fwp.GroupSID(uint32(n))
	}
	return fwp.SID(s)
}
