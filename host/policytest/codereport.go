package policytest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// WriteText prints what ran and each gap.
func (c *Code) WriteText(out io.Writer) {
	ran, all := c.Count()
	if c.Uncounted != "" {
		fmt.Fprintf(out, "coverage of %s: not known: %s\n", c.Module, c.Uncounted)
		return
	}
	if c.Stripped {
		fmt.Fprintf(out, "coverage of %s: not known, the module is stripped: %d of %d blocks ran, libraries among them\n", c.Module, ran, all)
		return
	}
	fmt.Fprintf(out, "coverage of %s: %.1f %% (%d of %d %s)\n", c.Module, c.Percent(), ran, all, c.Unit)
	for _, g := range c.Gaps() {
		fmt.Fprintf(out, "  %s: %s\n", g.Place, g.What)
	}
}

// WriteJSON prints what ran as one object.
func (c *Code) WriteJSON(out io.Writer) error {
	ran, all := c.Count()
	return json.NewEncoder(out).Encode(struct {
		Event   string    `json:"event"`
		Module  string    `json:"module"`
		Percent float64   `json:"percent"`
		Unit    string    `json:"unit"`
		Ran     int       `json:"ran"`
		All     int       `json:"all"`
		Strip   bool      `json:"stripped,omitempty"`
		Why     string    `json:"uncounted,omitempty"`
		Gaps    []CodeGap `json:"gaps,omitempty"`
	}{"code_coverage", c.Module, c.Percent(), c.Unit, ran, all, c.Stripped, c.Uncounted, c.Gaps()})
}

// lines says of each line of each file whether all of it ran.
func (c *Code) lines() (files []string, lines map[string]map[int]bool) {
	lines = map[string]map[int]bool{}
	for _, p := range c.Parts {
		if p.File == "" || p.Size == 0 {
			continue
		}
		if lines[p.File] == nil {
			files, lines[p.File] = append(files, p.File), map[int]bool{}
		}
		for n := p.Line; n <= p.End; n++ {
			all, known := lines[p.File][n]
			lines[p.File][n] = p.Ran && (all || !known)
		}
	}
	slices.Sort(files)
	return files, lines
}

func sorted(lines map[int]bool) (out []int) {
	for n := range lines {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// WriteLCOV prints the lines of callouts whose source is known in the form of
// lcov, which editors and services read.
func WriteLCOV(out io.Writer, codes []Code) error {
	var b strings.Builder
	for i := range codes {
		files, lines := codes[i].lines()
		for _, file := range files {
			fmt.Fprintf(&b, "TN:\nSF:%s\n", file)
			hit := 0
			for _, n := range sorted(lines[file]) {
				ran := 0
				if lines[file][n] {
					ran, hit = 1, hit+1
				}
				fmt.Fprintf(&b, "DA:%d,%d\n", n, ran)
			}
			fmt.Fprintf(&b, "LF:%d\nLH:%d\nend_of_record\n", len(lines[file]), hit)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

//go:embed coverage.html
var coverageHTML string

var coveragePage = template.Must(template.New("coverage").Parse(coverageHTML))

// A PolicyCoverage is what of a policy was reached.
type PolicyCoverage struct {
	Policy string
	Summary
}

// A page is what the template is given.
type page struct {
	Policies []PolicyCoverage
	Modules  []pageModule
}

type pageModule struct {
	*Code
	Files []pageFile
}

type pageFile struct {
	Name  string
	Lines []pageLine
	Error string // why the source is not there
}

type pageLine struct {
	Number      int
	Text, Class string
}

// WriteHTML writes a page of its own: what of policies and of callouts' sources was
// reached.
func WriteHTML(out io.Writer, policies []PolicyCoverage, codes []Code) error {
	p := page{Policies: policies}
	for i := range codes {
		m := pageModule{Code: &codes[i]}
		files, lines := codes[i].lines()
		for _, file := range files {
			m.Files = append(m.Files, sourcePage(file, lines[file]))
		}
		p.Modules = append(p.Modules, m)
	}
	return coveragePage.Execute(out, p)
}

// maxSource bounds a source that is shown, in bytes.
const maxSource = 4 << 20

func sourcePage(file string, ran map[int]bool) pageFile {
	f := pageFile{Name: file}
	in, err := wholefile.Open(file)
	if err != nil {
		f.Error = err.Error()
		return f
	}
	defer in.Close()
	src, err := io.ReadAll(io.LimitReader(in, maxSource))
	if err != nil {
		f.Error = err.Error()
	}
	for i, text := range strings.Split(strings.TrimRight(string(src), "\n"), "\n") {
		l := pageLine{Number: i + 1, Text: text}
		if all, known := ran[l.Number]; known {
			l.Class = map[bool]string{true: "ran", false: "gap"}[all]
		}
		f.Lines = append(f.Lines, l)
	}
	return f
}
