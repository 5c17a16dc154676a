package policymodel

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A Model is one that is shipped.
type Model struct {
	Name string
	What string // in a line
	Arg  string // what may follow the name and a colon; empty: nothing
}

const firewallName = "windows-firewall"

// Models are the shipped ones.
var Models = []Model{
	{"vpn-kill-switch", "a VPN client that blocks, hard and above all others, what does not go through its tunnel", ""},
	{firewallName, "Windows Firewall: out is permitted, in is blocked, but for the rules of a file", "[PROFILE:]RULES"},
	{"second-redirector", "another product that sends every TCP connection to its own proxy, by the book", ""},
	{"forgetful-redirector", "the same, but its proxy does not set the redirect records: a loop without end", ""},
}

//go:embed models/*.yaml
var texts embed.FS

// Names are those of the shipped models.
func Names() (out []string) {
	for _, m := range Models {
		out = append(out, m.Name)
	}
	return out
}

// A Text is a model as a policy file.
type Text struct {
	Name string
	YAML []byte
	// Notes are for people: what of a machine the model does not have.
	Notes []string

	placed []byte // the same, each thing in the line that it comes from
}

// Known reports whether a word names a shipped model: its name, or its name, a colon
// and an argument.
func Known(word string) bool {
	name, _, _ := strings.Cut(word, ":")
	return slices.Contains(Names(), name)
}

// Open returns a shipped model. windows-firewall:FILE has the rules of a file, which is
// what netsh advfirewall firewall show rule name=all prints, for the profile Public;
// windows-firewall:private:FILE and windows-firewall:domain:FILE those of another one.
// FILE is relative to dir. The error of a file with mistakes is policyfile.Errors.
func Open(dir, word string) (*Text, error) {
	name, arg, given := strings.Cut(word, ":")
	switch {
	case !slices.Contains(Names(), name):
		return nil, fmt.Errorf("there is no model %q (%s)", name, strings.Join(Names(), ", "))
	case name == firewallName:
		return openFirewall(dir, word, arg, given)
	case given:
		return nil, fmt.Errorf("model %s takes no argument, found %q", name, arg)
	}
	text, err := texts.ReadFile("models/" + name + ".yaml")
	return &Text{Name: name, YAML: text, placed: text}, err
}

func openFirewall(dir, word, arg string, given bool) (*Text, error) {
	p := profile("Public")
	for _, q := range profiles {
		if rest, ok := strings.CutPrefix(arg, strings.ToLower(string(q))+":"); ok {
			p, arg = q, rest
		}
	}
	if !given {
		f := &firewall{}
		return &Text{Name: word, YAML: f.policy(false), placed: f.policy(true)}, nil
	}
	arg = policyfile.Under(dir, arg)
	src, err := read(arg)
	if err != nil {
		return nil, fmt.Errorf("model %s: the file with its rules: %w", firewallName, err)
	}
	f, err := newFirewall(arg, src, p)
	if err != nil {
		return nil, err
	}
	return &Text{Name: arg, YAML: f.policy(false), Notes: f.notes(), placed: f.policy(true)}, nil
}

// read reads no more of a file than is needed to see that it is too long.
func read(path string) ([]byte, error) {
	f, err := wholefile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, policyfile.MaxSize*2+1))
}

// Policy reads the model; places are those of the file that it comes from.
func (t *Text) Policy() (*policyfile.File, error) { return policyfile.Parse(t.Name, t.placed) }
