package policymodel

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/policyfile"
)

var update = flag.Bool("update", false, "write testdata")

// What netsh prints becomes this policy, rule by rule.
func TestFirewallRulesAsAPolicy(t *testing.T) {
	text, err := Open("", "windows-firewall:"+filepath.Join("testdata", "rules.txt"))
	require.NoError(t, err)
	golden := filepath.Join("testdata", "rules.yaml")
	if *update {
		require.NoError(t, os.WriteFile(golden, text.YAML, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(text.YAML))
	rules := filepath.Join("testdata", "rules.txt")
	require.Equal(t, []string{
		rules + ": the rule in line 94 is left out: they name LocalSubnet, which only the machine knows",
		rules + ": the rule in line 108 is left out: they name the port RPC, which only the machine knows",
		rules + ": 2 rules are left out, the first in line 122: they are for one Windows service, and a program is not told apart from the services in it",
		rules + ": the rule in line 153 is left out: they are for connections that IPsec secures",
	}, text.Notes)
}

// Each filter stands in the line of its rule, and both forms of a model say the same.
func TestFirewallFiltersStandWhereTheirRulesDo(t *testing.T) {
	rules := filepath.Join("testdata", "rules.txt")
	text, err := Open("", "windows-firewall:"+rules)
	require.NoError(t, err)
	placed, err := text.Policy()
	require.NoError(t, err)
	plain, err := policyfile.Parse("plain", text.YAML)
	require.NoError(t, err)
	require.Equal(t, plain.Policy, placed.Policy)
	src, err := os.ReadFile(rules)
	require.NoError(t, err)
	lines := strings.Split(string(src), "\n")
	for _, f := range placed.Policy.Filters {
		if strings.HasPrefix(f.Name, "Default") || strings.HasPrefix(f.Name, "Loopback") {
			continue
		}
		_, place, _ := strings.Cut(placed.Place(f.ID), ":")
		var n int
		_, err := fmt.Sscan(place, &n)
		require.NoError(t, err)
		require.Equal(t, "Rule Name: "+f.Name, strings.Join(strings.Fields(lines[n-1]), " "))
	}
}

func TestFirewallProfiles(t *testing.T) {
	rules := filepath.Join("testdata", "rules.txt")
	for word, want := range map[string]bool{"windows-firewall:" + rules: false, "windows-firewall:private:" + rules: true, "windows-firewall:domain:" + rules: false} {
		text, err := Open("", word)
		require.NoError(t, err)
		require.Equal(t, want, strings.Contains(string(text.YAML), "At home"), word)
	}
}

// PowerShell writes UTF-16.
func TestFirewallRulesInUTF16(t *testing.T) {
	src, err := os.ReadFile(filepath.Join("testdata", "rules.txt"))
	require.NoError(t, err)
	wide := []byte("\xff\xfe")
	for _, u := range utf16.Encode([]rune(strings.ReplaceAll(string(src), "\n", "\r\n"))) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	a, err := newFirewall("rules", src, "Public")
	require.NoError(t, err)
	b, err := newFirewall("rules", wide, "Public")
	require.NoError(t, err)
	require.Equal(t, string(a.policy(true)), string(b.policy(true)))
}

const aRule = "Rule Name: x\n----\nEnabled: Yes\nDirection: In\nAction: Allow\n"

func TestFirewallMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"another language":  {"\nRegelname:    x\n", `rules.txt:2:1: expected Rule Name: and a name, found "Regelname:    x": this is not what netsh advfirewall`},
		"no direction":      {"Rule Name: x\nEnabled: Yes\nAction: Allow\n", `rules.txt:1:1: rule "x" has no Direction`},
		"no word":           {"Rule Name: x\nEnabled: yes\nDirection: In\nAction: Allow\n", `rules.txt:2:1: Enabled: expected Yes or No, found "yes" (did you mean "Yes"?)`},
		"no name":           {"Rule Name:\n", `rules.txt:1:1: Rule Name: the rule has no name`},
		"unknown key":       {aRule + "LocalPorts: 80\n", `rules.txt:6:1: unknown key "LocalPorts", expected one of netsh`},
		"twice":             {aRule + "Action: Block\n", `rules.txt:6:1: key "Action" stands twice in one rule, first in line 5`},
		"no key":            {aRule + "what is this\n", `rules.txt:6:1: expected a key and its value, found "what is this"`},
		"a line of nothing": {aRule + "   more\n", `rules.txt:6:1: expected a key and its value, found "more"`},
		"address":           {aRule + "RemoteIP: 10.0.0.0/33\n", `rules.txt:6:1: RemoteIP: expected an address, a network or a range such as 192.0.2.0/24, found "10.0.0.0/33"`},
		"wide mask":         {aRule + "RemoteIP: 2001:db8::1/255.0.0.0\n", `found "2001:db8::1/255.0.0.0"`},
		"two programs":      {aRule + "Program: C:\\a.exe\n    C:\\b.exe\n", `rules.txt:7:1: expected a key and its value, found "C:\\b.exe"`},
		"too many":          {strings.Repeat(strings.Replace(aRule, "x", strings.Repeat("x", 100), 1), 5000), `make a larger policy than there can be (1048576 bytes)`},
		"many of many":      {aRule + "Protocol: ICMPv4\n" + strings.Repeat(" 8 0\n", 100_000) + "RemoteIP: 192.0.2.1\n" + strings.Repeat(" 192.0.2.1\n", 100_000), `rules.txt:1:1: the rules up to this one`},
		"mask":              {aRule + "RemoteIP: 10.0.0.0/255.0.255.0\n", `found "10.0.0.0/255.0.255.0"`},
		"backwards":         {aRule + "LocalIP: 10.0.0.9-10.0.0.1\n", `found "10.0.0.9-10.0.0.1"`},
		"port":              {aRule + "Protocol: TCP\nLocalPort: 70000\n", `rules.txt:7:1: LocalPort: expected ports such as 80 or 5000-5010, found "70000"`},
		"protocol":          {aRule + "Protocol: TCPv4\n", `rules.txt:6:1: Protocol: expected a protocol of netsh such as TCP, or a number up to 255, found "TCPv4" (did you mean "ICMPv4"?)`},
		"profile":           {aRule + "Profiles: Public,Office\n", `rules.txt:6:1: Profiles: expected some of Domain, Private, Public, found "Office"`},
		"program":           {aRule + "Program: curl\n", `rules.txt:6:1: Program: expected a path such as`},
		"ICMP row":          {aRule + "Protocol: ICMPv4\n    8 x\n", `rules.txt:7:1: expected an ICMP type and its code, numbers up to 255 or Any, found "8 x"`},
		"no ICMP":           {aRule + "Protocol: TCP\n    8 Any\n", `rules.txt:6:1: Protocol: "TCP" has no ICMP types`},
		"OEM":               {"Rule Name: Gr\x81n\n", `rules.txt:1:14: byte 0x81 is no UTF-8: save what netsh prints as UTF-8`},
		"half UTF-16":       {"\xff\xfea", `rules.txt:1:1: half a character`},
		"size":              {strings.Repeat("\n", 2*policyfile.MaxSize+1), `rules.txt:1:1: the file is larger than 2097152 bytes`},
		"mistakes":          {strings.Repeat("Rule Name:\n", 1000), `rules.txt:101:1: Rule Name: the rule has no name`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newFirewall("rules.txt", []byte(c.text), "Public")
			require.ErrorContains(t, err, c.want)
			var es policyfile.Errors
			require.ErrorAs(t, err, &es)
			require.LessOrEqual(t, len(es), policyfile.MaxProblems+1)
		})
	}
}

// A list, or a description, can have as many lines as the file: they are joined once.
func TestLongListsAreReadAtOnce(t *testing.T) {
	addresses := strings.Repeat("    192.0.2.1\n", 20_000)
	for name, text := range map[string]string{"list": aRule + "RemoteIP: 192.0.2.1,\n" + addresses, "description": aRule + "Description: x\n" + addresses} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rules, err := readNetsh("rules.txt", []byte(text))
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		require.Len(t, listed(rules[0].values["RemoteIP"]), map[string]int{"list": 20_001}[name])
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100*len(text)), "%s of %d bytes", name, len(text))
	}
}

// Whatever the text, there is no panic, each mistake has a line of the text, and what
// is taken is a policy that the engine takes.
func FuzzFirewall(f *testing.F) {
	src, err := os.ReadFile(filepath.Join("testdata", "rules.txt"))
	require.NoError(f, err)
	for _, rule := range strings.SplitAfter(string(src), "\n\n") {
		f.Add([]byte(rule))
	}
	f.Add(src)
	f.Add([]byte("\xff\xfeR\x00u\x00"))
	f.Fuzz(func(t *testing.T, src []byte) {
		text := strings.Count(string(src), "\n") + 1
		fw, err := newFirewall("rules.txt", src, "Public")
		var file *policyfile.File
		if err == nil {
			file, err = policyfile.Parse("rules.txt", fw.policy(true))
		}
		var es policyfile.Errors
		if errors.As(err, &es) {
			for _, p := range es {
				require.Positive(t, p.Line)
				require.LessOrEqual(t, p.Line, text, "%v", p)
			}
			return
		}
		require.NoError(t, err)
		require.NoError(t, host.New(host.Options{}).Update(func(p *fwpm.Policy) error { *p = file.Policy; return nil }))
		plain, err := policyfile.Parse("plain", fw.policy(false))
		require.NoError(t, err)
		require.Equal(t, plain.Policy, file.Policy)
	})
}
