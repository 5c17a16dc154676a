package policymodel

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/policyfile"
)

// counts reports whether a rule is for the profile.
func (f *firewall) counts(r *rule) bool {
	v, ok := r.values["Profiles"]
	if !ok || v == "Any" {
		return true
	}
	found := false
	for _, word := range strings.Split(v, ",") {
		p := profile(strings.TrimSpace(word))
		if !slices.Contains(profiles, p) {
			f.reader.fail(r.lines["Profiles"], 1, "", "Profiles: expected some of Domain, Private, Public, found %q", short(string(p)))
		}
		found = found || p == f.profile
	}
	return found
}

// scope is what else a rule depends on.
func (f *firewall) scope(r *rule, _ *conditions) string {
	other := func(key string, any ...string) bool {
		v, ok := r.values[key]
		return ok && v != "" && !slices.Contains(any, v)
	}
	switch {
	case r.values["Action"] == "Bypass", other("Security", "NotRequired"):
		return "they are for connections that IPsec secures"
	case other("Service", "Any"):
		return "they are for one Windows service, and a program is not told apart from the services in it"
	case other("InterfaceTypes", "Any"):
		return "they are for a kind of interface"
	}
	return ""
}

var folders = strings.NewReplacer("%systemroot%", `c:\windows`, "%windir%", `c:\windows`, "%systemdrive%", "c:",
	"%programfiles%", `c:\program files`, "%programfiles(x86)%", `c:\program files (x86)`)

// program is compared in lower case, as ALE_APP_ID is written (BFE-CND-08).
func (f *firewall) program(r *rule, c *conditions) string {
	p := folders.Replace(strings.ToLower(r.values["Program"]))
	switch {
	case p == "" || p == "any":
	case p == "system":
		c.add("ALE_APP_ID", "match: equal, ", p) // It is no path.
	case !strings.ContainsAny(p, `\/`):
		f.reader.fail(r.lines["Program"], 1, "", "Program: expected a path such as C:\\Windows\\System32\\curl.exe, System or Any, found %q", short(p))
	default:
		c.add("ALE_APP_ID", "", strings.ReplaceAll(p, "/", `\`))
	}
	return ""
}

// The protocols that netsh names.
var netshProtocols = map[string]uint8{"TCP": 6, "UDP": 17, "ICMPv4": 1, "ICMPv6": 58, "HOPOPT": 0, "IGMP": 2, "IPv6": 41, "IPv6-Route": 43,
	"IPv6-Frag": 44, "GRE": 47, "IPv6-NoNxt": 59, "IPv6-Opts": 60, "VRRP": 112, "PGM": 113, "L2TP": 115}

func (f *firewall) protocol(r *rule, c *conditions) string {
	v := cmp.Or(r.values["Protocol"], "Any")
	n, ok := netshProtocols[v]
	if p, err := strconv.ParseUint(v, 10, 8); err == nil {
		n, ok = uint8(p), true
	}
	switch {
	case v == "Any":
	case !ok:
		f.reader.fail(r.lines["Protocol"], 1, policyfile.Nearest(v, slices.Sorted(maps.Keys(netshProtocols))), "Protocol: expected a protocol of netsh such as TCP, or a number up to 255, found %q", short(v))
	default:
		c.add("IP_PROTOCOL", "", int(n))
		c.family = map[uint8]string{1: "_V4", 58: "_V6"}[n]
	}
	if len(r.icmp) > 0 && n != 1 && n != 58 {
		f.reader.fail(r.lines["Protocol"], 1, "", "Protocol: %q has no ICMP types", short(v))
	}
	return ""
}

// A netshList is a key with a list of values, and the field that they are of.
type netshList struct{ key, field string }

func (f *firewall) addresses(r *rule, c *conditions) string {
	return f.lists(r, c, []netshList{{"LocalIP", "IP_LOCAL_ADDRESS"}, {"RemoteIP", "IP_REMOTE_ADDRESS"}}, address,
		"an address, a network or a range such as 192.0.2.0/24", "they name ")
}

func (f *firewall) ports(r *rule, c *conditions) string {
	return f.lists(r, c, []netshList{{"LocalPort", "IP_LOCAL_PORT"}, {"RemotePort", "IP_REMOTE_PORT"}}, ports,
		"ports such as 80 or 5000-5010", "they name the port ")
}

// lists adds a condition for each list. Names that only Windows can look up are why the
// rule cannot be said.
func (f *firewall) lists(r *rule, c *conditions, of []netshList, parse func(string) (any, bool), want, names string) string {
	for _, l := range of {
		var all []any
		for _, word := range listed(r.values[l.key]) {
			v, ok := parse(word)
			switch {
			case !ok && isWord(word):
				return names + word + ", which only the machine knows"
			case !ok:
				f.reader.fail(r.lines[l.key], 1, "", "%s: expected %s, found %q", l.key, want, short(word))
			default:
				all = append(all, v)
			}
		}
		if len(all) > 0 {
			c.add(l.field, "", all...)
		}
	}
	return ""
}

// conditions are those of a filter, as YAML.
type conditions struct {
	list   []string
	family string // of the layer, empty for both
}

func (c *conditions) add(field, match string, values ...any) {
	v, _ := json.Marshal(values) // Texts and numbers: YAML reads them as JSON does.
	if len(values) == 1 {
		v, _ = json.Marshal(values[0])
	}
	c.list = append(c.list, fmt.Sprintf("{field: %s, %svalue: %s}", field, match, v))
}

// icmp adds a type and a code, which stand where ports do (ALE-FLD-01).
func (c *conditions) icmp(row icmpRow) []string {
	all := conditions{list: slices.Clone(c.list)}
	if row.kind >= 0 {
		all.add("IP_LOCAL_PORT", "", row.kind)
	}
	if row.code >= 0 {
		all.add("IP_REMOTE_PORT", "", row.code)
	}
	return all.list
}
