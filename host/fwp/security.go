package fwp

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A SID names a user or a group, "S-1-...". Users and groups of a Unix system
// are S-1-22-1-UID and S-1-22-2-GID, as Samba has them.
type SID string

// SIDEveryone is the group that everybody is in.
const SIDEveryone SID = "S-1-1-0"

// UserSID is the SID of a numeric user.
func UserSID(uid uint32) SID { return SID("S-1-22-1-" + strconv.FormatUint(uint64(uid), 10)) }

// GroupSID is the SID of a numeric group.
func GroupSID(gid uint32) SID { return SID("S-1-22-2-" + strconv.FormatUint(uint64(gid), 10)) }

// Unix takes a SID of a Unix user or group apart.
func (s SID) Unix() (id uint32, group, ok bool) {
	rest, ok := strings.CutPrefix(string(s), "S-1-22-")
	if !ok {
		return 0, false, false
	}
	kind, number, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(number, 10, 32)
	return uint32(n), kind == "2", err == nil && (kind == "1" || kind == "2")
}

// Valid reports whether s has the form of a SID: a revision, an authority and up
// to 15 subauthorities.
func (s SID) Valid() bool {
	parts := strings.Split(string(s), "-")
	if len(parts) < 3 || len(parts) > 18 || parts[0] != "S" || parts[1] != "1" {
		return false
	}
	for i, p := range parts[2:] {
		bits := 32
		if i == 0 {
			bits = 48
		}
		if _, err := strconv.ParseUint(p, 10, bits); err != nil {
			return false
		}
	}
	return true
}

// A Token is who acts: FWP_TOKEN_INFORMATION.
type Token struct {
	User   SID
	Groups []SID
}

// Has reports whether the token holds a SID. Everybody holds SIDEveryone.
func (t *Token) Has(s SID) bool {
	return s == SIDEveryone || t.User == s || slices.Contains(t.Groups, s)
}

// ActrlMatchFilter is FWP_ACTRL_MATCH_FILTER: the right that a security
// descriptor condition asks for (BFE-CND-07).
const ActrlMatchFilter uint32 = 0x1

// A SecurityDescriptor is the discretionary ACL of a SECURITY_DESCRIPTOR.
type SecurityDescriptor struct{ ACEs []ACE }

// An ACE allows or denies rights to who holds a SID.
type ACE struct {
	Deny bool
	Mask uint32
	SID  SID
}

// Allow makes a descriptor that lets every one of the SIDs match.
func Allow(sids ...SID) Value {
	sd := new(SecurityDescriptor)
	for _, s := range sids {
		sd.ACEs = append(sd.ACEs, ACE{Mask: ActrlMatchFilter, SID: s})
	}
	return Value{Type: SecurityDescriptorType, SD: sd}
}

// Grants is the access check: the first ACE that names the token and the right
// decides; without one the answer is no.
func (sd *SecurityDescriptor) Grants(t *Token, right uint32) bool {
	for i := range sd.ACEs {
		if a := &sd.ACEs[i]; a.Mask&right == right && t.Has(a.SID) {
			return !a.Deny
		}
	}
	return false
}

func (sd *SecurityDescriptor) String() string {
	if sd == nil {
		return "D:"
	}
	var b strings.Builder
	b.WriteString("D:")
	for _, a := range sd.ACEs {
		kind := "A"
		if a.Deny {
			kind = "D"
		}
		fmt.Fprintf(&b, "(%s;;0x%x;;;%s)", kind, a.Mask, a.SID)
	}
	return b.String()
}

// beforeACEs is what stands before the first ACE: owner, group and the flags of the DACL.
var beforeACEs = regexp.MustCompile(`^(O:([A-Z]{2}|S-[-0-9]+))?(G:([A-Z]{2}|S-[-0-9]+))?D:(P|AI|AR)*`)

// ParseSecurityDescriptor reads the part of SDDL that filters use: an optional
// owner and group and flags of the DACL, which do not count, and a DACL of plain
// allow and deny ACEs, as in "O:SYG:SYD:(A;;CCRC;;;S-1-22-1-1000)".
func ParseSecurityDescriptor(s string) (*SecurityDescriptor, error) {
	before := beforeACEs.FindString(s)
	if before == "" {
		return nil, fmt.Errorf("security descriptor %q has no DACL (D:)", s)
	}
	dacl := s[len(before):]
	sd := new(SecurityDescriptor)
	for dacl != "" {
		if dacl[0] != '(' {
			return nil, fmt.Errorf("security descriptor %q: expected an ACE such as (A;;CC;;;WD) at %q", s, dacl)
		}
		text, rest, closed := strings.Cut(dacl[1:], ")")
		if !closed {
			return nil, fmt.Errorf("security descriptor %q: an ACE is not closed", s)
		}
		a, err := parseACE(text)
		if err != nil {
			return nil, err
		}
		sd.ACEs = append(sd.ACEs, a)
		dacl = rest
	}
	return sd, nil
}

// knownSIDs are the two-letter names of SDDL that mean something here.
var knownSIDs = map[string]SID{"WD": SIDEveryone, "SY": "S-1-5-18", "BA": "S-1-5-32-544", "LS": "S-1-5-19", "NS": "S-1-5-20"}

// rightNames are the names of rights in SDDL, each with its bit. Generic rights are
// none: what they mean for a filter is not documented.
var rightNames = map[string]uint32{
	"CC": ActrlMatchFilter, "DC": 1 << 1, "LC": 1 << 2, "SW": 1 << 3, "RP": 1 << 4, "WP": 1 << 5, "DT": 1 << 6, "LO": 1 << 7, "CR": 1 << 8,
	"SD": 1 << 16, "RC": 1 << 17, "WD": 1 << 18, "WO": 1 << 19,
}

// parseRights reads a number, or names one after the other: CCRC.
func parseRights(s string) (mask uint32, ok bool) {
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return uint32(n), true
	}
	for ; len(s) >= 2; s = s[2:] {
		bit := rightNames[s[:2]]
		if bit == 0 {
			return 0, false
		}
		mask |= bit
	}
	return mask, mask != 0 && s == ""
}

func parseACE(s string) (ACE, error) {
	f := strings.Split(s, ";")
	if len(f) != 6 {
		return ACE{}, fmt.Errorf("ACE (%s) has %d fields, not 6", s, len(f))
	}
	a := ACE{Deny: f[0] == "D", SID: SID(f[5])}
	if f[0] != "A" && f[0] != "D" {
		return a, fmt.Errorf("ACE (%s): type %q is neither A nor D", s, f[0])
	}
	var ok bool
	if a.Mask, ok = parseRights(f[2]); !ok {
		return a, fmt.Errorf("ACE (%s): rights %q are neither names such as CC nor a number", s, f[2])
	}
	if known, ok := knownSIDs[f[5]]; ok {
		a.SID = known
	}
	if !a.SID.Valid() {
		return a, fmt.Errorf("ACE (%s): %q is no SID", s, f[5])
	}
	return a, nil
}
