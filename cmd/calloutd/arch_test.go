package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/calloutd/calloutd/"

// imports is the architecture: what each package of this module may import of
// it, tests left out. A new edge is a change of this table.
var imports = map[string]string{
	"host/fwp":                          "",
	"host/redirect":                     "",
	"sdk/abi":                           "",
	"sdk/project/wholefile":             "",
	"sdk/project/filelock":              "sdk/project/wholefile",
	"sdk/go/sockaddr":                   "",
	"wsk/ntstatus":                      "",
	"host/fwpm":                         "host/fwp",
	"host/fwps":                         "host/fwp host/fwpm host/redirect wsk/ntstatus",
	"host/redirect/memstore":            "host/redirect host/internal/percore",
	"host/internal/percore":             "",
	"host/redirect/arenastore":          "host/redirect host/internal/percore host/internal/race",
	"host/redirect/boltstore":           "host/redirect host/redirect/arenastore sdk/project/filelock",
	"host/redirect/storetest":           "host/redirect",
	"host/internal/oneline":             "",
	"host/loglimit":                     "",
	"host/internal/trie":                "",
	"host/internal/cputime":             "",
	"host/internal/load":                "host/fwp host/fwpm host/fwps",
	"host/internal/race":                "",
	"host/internal/apart":               "host/internal/race",
	"host/internal/clockset":            "",
	"host/internal/sample":              "host/fwp host/fwpm host/fwps",
	"host/benchscale":                   "host/arbitrate host/fwpm host/fwps host/internal/cputime host/internal/load",
	"host/arbitrate":                    "host/fwp host/fwpm host/fwps host/redirect host/internal/trie",
	"host/policyfile":                   "host/fwp host/fwpm host/arbitrate sdk/abi sdk/project/wholefile host/internal/oneline",
	"host/policyrun":                    "host host/ale host/enforce/dnsnames host/enforce/handoff host/fwp host/fwpm host/fwps host/guest host/policyfile host/policymodel host/redirect host/redirect/memstore sdk/abi sdk/project sdk/project/wholefile wsk wsk/localproxy wsk/ntstatus wsk/wsknet",
	"host/policymodel":                  "host/fwp host/fwps host/internal/oneline host/policyfile host/redirect sdk/project/wholefile",
	"host/policytest":                   "host/ale host/arbitrate host/flight host/fwp host/fwpm host/fwps host/guest/meter host/journal host/policyfile host/redirect host/redirect/memstore sdk/go/sockaddr sdk/project/wholefile",
	"host/policytrace":                  "host/ale host/arbitrate host/fwp host/fwpm host/fwps host/guest host/journal host/policyrun host/policytest host/redirect wsk wsk/ntstatus host/internal/oneline",
	"host/journal":                      "",
	"host/flight":                       "host/journal host/redirect sdk/project/wholefile",
	"host/flight/recorder":              "host/flight host/fwp host/fwpm host/fwps host/journal",
	"host/flight/importer":              "host/flight host/fwps",
	"host/policydraft":                  "host/flight host/fwps host/internal/oneline",
	"host/policyfuzz":                   "host/fwpm host/fwps host/internal/oneline host/policytest",
	"host/guest/meter":                  "",
	"host/guest":                        "host/fwp host/fwpm host/fwps host/guest/meter host/internal/apart host/internal/oneline host/internal/race host/journal host/loglimit sdk/abi",
	"host":                              "host/arbitrate host/fwp host/fwpm host/fwps host/internal/trie host/redirect wsk/ntstatus",
	"host/conformance":                  "host host/ale host/arbitrate host/fwp host/fwpm host/fwps host/redirect host/redirect/memstore wsk/ntstatus",
	"host/ale":                          "host/fwp host/fwpm host/fwps host/redirect wsk/ntstatus host/internal/oneline",
	"host/enforce/internal/bypass":      "",
	"host/enforce/internal/netspace":    "",
	"host/enforce/internal/doomed":      "",
	"host/enforce/internal/reach":       "",
	"host/enforce/internal/unreachable": "",
	"host/enforce/cgroupbpf/bpf":        "",
	"host/enforce/cgroupbpf":            "host/ale host/arbitrate host/fwp host/fwpm host/fwps host/redirect host/enforce host/enforce/cgroupbpf/bpf host/enforce/handoff host/enforce/internal/carry host/enforce/internal/netspace host/enforce/internal/routes host/enforce/internal/unreachable host/loglimit",
	"host/enforce":                      "host/enforce/internal/doomed",
	"host/enforce/enforcetest":          "host host/ale host/enforce host/fwp host/fwpm host/fwps host/loglimit host/redirect/memstore",
	"host/enforce/handoff":              "host/enforce/internal/reach host/internal/oneline",
	"host/enforce/seccomp":              "host/ale host/fwp host/fwpm host/fwps host/redirect host/enforce host/enforce/handoff host/enforce/internal/carry host/enforce/internal/doomed host/enforce/internal/routes host/loglimit",
	"host/enforce/nftgateway":           "host/ale host/enforce host/enforce/handoff host/enforce/internal/carry host/enforce/internal/unreachable host/fwps host/loglimit",
	"host/enforce/dnsnames":             "host/ale host/enforce/internal/reach host/fwps host/loglimit",
	"host/enforce/costbench":            "",
	"host/enforce/costbench/relay":      "",
	"host/enforce/internal/carry":       "host/ale host/enforce host/enforce/handoff host/fwps host/loglimit wsk/transport",
	"host/enforce/internal/routes":      "host/ale host/enforce/internal/netspace",
	"wsk":                               "host/ale host/fwps host/redirect wsk/transport wsk/ntstatus",
	"wsk/transport":                     "",
	"wsk/wsknet":                        "wsk wsk/transport wsk/ntstatus",
	"wsk/winsock":                       "host/redirect wsk wsk/ntstatus",
	"wsk/wsktest":                       "host host/ale host/fwp host/fwpm host/fwps host/redirect host/redirect/memstore sdk/go/sockaddr wsk wsk/ntstatus wsk/winsock",
	"wsk/remote":                        "host/ale host/enforce host/fwps host/loglimit host/redirect wsk wsk/transport wsk/ntstatus",
	"wsk/localproxy":                    "host/redirect host/loglimit sdk/go/sockaddr wsk wsk/winsock wsk/wsknet",
	"sdk":                               "",
	"sdk/project":                       "sdk/project/wholefile sdk",
	"sdk/go/callout":                    "sdk/abi",
	"sdk/go/callouttest":                "host host/fwpm host/fwps host/guest host/policyfile host/policyrun host/policytest host/policytrace host/redirect",
	"sdk/tck":                           "sdk/abi",
	"sdk/tck/toolchain":                 "",
	"sdk/tck/go":                        "sdk/abi sdk/go/callout",
	"examples/wsk-echo":                 "wsk wsk/ntstatus",
	"examples/wsk-proxy":                "sdk/go/sockaddr wsk wsk/ntstatus wsk/winsock",
	"plugins/proxy-redirect":            "sdk/go/callout sdk/go/sockaddr sdk/abi",
	"examples/allow-list":               "sdk/abi sdk/go/callout",
	"examples/embed":                    "host host/ale host/fwp host/fwpm host/fwps host/redirect/memstore wsk wsk/wsknet",
	"examples/agent":                    "host/ale host/enforce host/enforce/seccomp host/fwps host/guest host/policyfile host/policyrun host/policytrace",
	"examples/test-in-go":               "",
	"examples/smallest":                 "host host/fwp host/fwpm host/fwps",
	"examples/smallest/empty":           "",
	"examples/tls-inspect":              "host host/ale host/fwp host/fwpm host/fwps host/redirect host/redirect/memstore wsk wsk/winsock wsk/wsknet",
	"examples/first-callout":            "sdk/go/callout",
	"cmd/calloutd":                      "*",

	"cmd/calloutd/internal/control":     "host/enforce host/enforce/dnsnames host/enforce/nftgateway host/guest wsk/remote",
	"cmd/calloutd/internal/explore":     "host/fwps host/policytest",
	"cmd/calloutd/internal/descriptors": "",
	"cmd/calloutd/internal/systemd":     "",
	"cmd/calloutd/internal/filewatch":   "",
	"cmd/calloutd/internal/jscover":     "",
}

func TestImportDirections(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	require.NoError(t, err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		seen[pkg] = true
		allowed, ok := imports[pkg]
		if !ok {
			t.Errorf("%s has no row in the table of import directions", pkg)
			continue
		}
		for _, imp := range words[1:] {
			imp, ours := strings.CutPrefix(imp, module)
			if ours && allowed != "*" && !slices.Contains(strings.Fields(allowed), imp) {
				t.Errorf("%s imports %s, which the table does not allow", pkg, imp)
			}
		}
	}
	for pkg := range imports {
		if !seen[pkg] {
			t.Errorf("%s is in the table but not in the module", pkg)
		}
	}
}

// modules is what somebody downloads who embeds a package: the packages of other
// modules that it needs, tests left out.
var modules = map[string]string{
	"host":                     "",
	"host/ale":                 "",
	"host/fwps":                "",
	"host/redirect/memstore":   "",
	"host/redirect/arenastore": "golang.org/x/sys",
	"host/guest":               "github.com/gaissmai/bart github.com/tetratelabs/wazero golang.org/x/sys",
	"host/policyfile":          "go.yaml.in/yaml/v4",
	"host/policyrun":           "github.com/gaissmai/bart github.com/miekg/dns github.com/tetratelabs/wazero go.yaml.in/yaml/v4 golang.org/x/net golang.org/x/sys",
	"host/enforce/seccomp":     "golang.org/x/net golang.org/x/sys",
	"wsk":                      "golang.org/x/sys",
	"wsk/wsknet":               "golang.org/x/sys",
	"wsk/winsock":              "golang.org/x/sys",
	"sdk/go/callout":           "",
}

func TestEmbeddersDependOnLittle(t *testing.T) {
	for pkg, want := range modules {
		cmd := exec.Command("go", "list", "-deps", "-f", `{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}`, module+pkg)
		cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64")
		out, err := cmd.Output()
		require.NoError(t, err, pkg)
		got := strings.Fields(string(out))
		slices.Sort(got)
		require.Equal(t, want, strings.Join(slices.Compact(got), " "), pkg)
	}
}

var level = regexp.MustCompile(`(?m)^//\tL(\d+) +([^(\n]*)`)

// The picture in host/doc.go is of the imports that there are: each leads down.
func TestImportsLeadDownThePicture(t *testing.T) {
	src, err := os.ReadFile("../../host/doc.go")
	require.NoError(t, err)
	levels := map[string]int{}
	for _, m := range level.FindAllStringSubmatch(string(src), -1) {
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		row, _, _ := strings.Cut(m[2], "◄")
		for _, pkg := range strings.Fields(row) {
			_, there := imports[pkg]
			require.True(t, there || pkg == "cmd/calloutd" || strings.HasSuffix(pkg, "/*"), "%s is drawn, and there is none", pkg)
			levels[pkg] = n
		}
	}
	require.NotEmpty(t, levels)
	of := func(pkg string) (int, bool) {
		if strings.HasPrefix(pkg, "host/enforce") {
			pkg = "host/enforce/*"
		}
		n, ok := levels[pkg]
		return n, ok
	}
	for pkg, list := range imports {
		from, drawn := of(pkg)
		for imported := range strings.FieldsSeq(list) {
			to, known := of(imported)
			if drawn && known && !(strings.HasPrefix(pkg, "host/enforce") && from == to) {
				require.Greater(t, from, to, "%s imports %s", pkg, imported)
			}
		}
	}
}

// Every package says what it is for.
func TestPackageDocs(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}|{{.Doc}}`, module+"...").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		pkg, doc, _ := strings.Cut(strings.TrimSpace(line), "|")
		require.NotEmpty(t, doc, "package %s has no doc comment", pkg)
	}
}
