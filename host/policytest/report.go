package policytest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/policyfile"
)

// where is the place of a case, as file:line.
func (r *Result) where() string {
	return fmt.Sprintf("%s:%d", policyfile.ShownPath(r.Suite.File), r.Case.Place.Line)
}

// Explain says line by line what was wanted and what came, without the trace.
func (r *Result) Explain() string {
	var b strings.Builder
	if r.Err != nil {
		fmt.Fprintf(&b, "%v\n", r.Err)
	}
	for _, sd := range r.Differences {
		for _, d := range sd.Differences {
			fmt.Fprintf(&b, "%s:%d: %s%s:", policyfile.ShownPath(r.Suite.File), d.Line, stepName(sd.Step), d.Key)
			if d.Hint != "" {
				b.WriteString(" " + d.Hint)
			}
			fmt.Fprintf(&b, "\n  - want %s\n  + got  %s\n", d.Want, d.Got)
		}
	}
	return b.String()
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by) + "\n"
}

// WriteText prints a result for people: a line, and all of it when it failed.
func (r *Result) WriteText(out io.Writer, verbose bool) {
	switch {
	case !r.Passed():
		fmt.Fprintf(out, "FAIL %s: %s\n%s    trace:\n%s", r.where(), r.Case.Name, indent(r.Explain(), "    "), indent(r.Trace, "      "))
	case verbose:
		fmt.Fprintf(out, "ok   %s: %s\n", r.where(), r.Case.Name)
	}
}

// WriteJSON prints a result as one object.
func (r *Result) WriteJSON(out io.Writer) error {
	line := struct {
		Event       string       `json:"event"`
		File        string       `json:"file"`
		Line        int          `json:"line"`
		Name        string       `json:"name"`
		Status      string       `json:"status"`
		Error       string       `json:"error,omitempty"`
		Differences []Difference `json:"differences,omitempty"`
		Trace       string       `json:"trace,omitempty"`
	}{Event: "case", File: r.Suite.File, Line: r.Case.Place.Line, Name: r.Case.Name, Status: "pass"}
	if !r.Passed() {
		line.Status, line.Trace = "fail", r.Trace
	}
	if r.Err != nil {
		line.Error = r.Err.Error()
	}
	for _, sd := range r.Differences {
		line.Differences = append(line.Differences, sd.Differences...)
	}
	return json.NewEncoder(out).Encode(line)
}

// WriteText prints what was reached and each gap.
func (s *Summary) WriteText(out io.Writer, policy string) {
	fmt.Fprintf(out, "coverage of %s: %.1f %% (%d of %d filters, %d of %d conditions)\n", policy, s.Percent(), s.FiltersAsked, s.Filters, s.ConditionsHeld, s.Conditions)
	for _, g := range append(append([]Gap(nil), s.Gaps...), s.OneFamily...) {
		fmt.Fprintf(out, "  %s: filter %d %q %s\n", g.Place, g.Filter, g.Name, g.What)
	}
}

// WriteJSON prints what was reached as one object.
func (s *Summary) WriteJSON(out io.Writer, policy string) error {
	return json.NewEncoder(out).Encode(struct {
		Event   string  `json:"event"`
		Policy  string  `json:"policy"`
		Percent float64 `json:"percent"`
		*Summary
	}{"coverage", policy, s.Percent(), s})
}

// WriteTAP prints results as the Test Anything Protocol, version 14.
func WriteTAP(out io.Writer, rs []Result) {
	fmt.Fprintf(out, "TAP version 14\n1..%d\n", len(rs))
	escape := strings.NewReplacer(`\`, `\\`, "#", `\#`, "\n", " ")
	for i := range rs {
		r := &rs[i]
		if r.Passed() {
			fmt.Fprintf(out, "ok %d - %s\n", i+1, escape.Replace(r.Case.Name))
			continue
		}
		fmt.Fprintf(out, "not ok %d - %s\n  ---\n  at: %s\n  message: |\n%s  trace: |\n%s  ...\n", i+1, escape.Replace(r.Case.Name),
			strconv.Quote(r.where()), indent(r.Explain(), "    "), indent(r.Trace, "    "))
	}
}

// The elements of JUnit's report, as CI systems read it.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
		seconds  float64
	}
	junitCase struct {
		Name    string     `xml:"name,attr"`
		Class   string     `xml:"classname,attr"`
		File    string     `xml:"file,attr"`
		Line    int        `xml:"line,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitText `xml:"failure"`
		Error   *junitText `xml:"error"`
		Output  string     `xml:"system-out,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit prints results as JUnit XML: a suite is a file of cases.
func WriteJUnit(out io.Writer, rs []Result) error {
	var all junitSuites
	for i := range rs {
		r := &rs[i]
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != r.Suite.File {
			all.Suites = append(all.Suites, junitSuite{Name: r.Suite.File})
		}
		all.Suites[len(all.Suites)-1].add(r)
	}
	for i := range all.Suites {
		s := &all.Suites[i]
		s.Time = seconds(s.seconds)
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
	}
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(out)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(out, "\n")
	return err
}

func (s *junitSuite) add(r *Result) {
	c := junitCase{Name: r.Case.Name, Class: r.Suite.File, File: r.Suite.File, Line: r.Case.Place.Line, Time: seconds(r.Took.Seconds())}
	s.Tests++
	s.seconds += r.Took.Seconds()
	switch {
	case r.Err != nil:
		s.Errors++
		c.Error = &junitText{r.Err.Error(), r.Explain()}
	case !r.Passed():
		s.Failures++
		c.Failure = &junitText{"not as expected", r.Explain()}
	}
	if !r.Passed() {
		c.Output = r.Trace
	}
	s.Cases = append(s.Cases, c)
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 6, 64) }
