package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE [--policy FILE]",
		Short: "Decide recorded connections again and show what is decided differently",
		Long: `Replay decides every connection of a flight file again and compares: the action, the
destination, who decided and why, and the bytes that the proxy and the callout got. What
callouts were told then they are told again: times, random bytes and what their stores
held come from the file, and so do the addresses of the policy's proxies. What a callout
keeps in its own memory does not. Nothing is connected.

With --with it is decided beside policies of other providers, or models of them: what a
VPN client, say, would have changed.

Without --policy it prints what the file holds. It ends with code 1 when a decision
differs.`,
		Example: `  calloutd run -p policy.yaml --record make.flight -- make
  calloutd replay make.flight -p policy.yaml
  calloutd replay make.flight -p policy.yaml --with windows-firewall
  calloutd replay make.flight`,
		Args: cobra.ExactArgs(1),
		RunE: tidily(func(cmd *cobra.Command, args []string) error { return o.replay(cmd, args[0]) }),
	}
	jsonFlag(cmd, &o.json)
	policyVar(cmd, &o.policy, "policy file that decides, or folder with a policy.yaml")
	o.beside.flag(cmd)
	return cmd
}

type replayOptions struct {
	policy string
	json   bool
	beside beside
}

func (o *replayOptions) replay(cmd *cobra.Command, file string) error {
	f, err := openFlight(file, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.policy == "" && len(o.beside.words) > 0 {
		return errors.New("--with needs --policy, which it stands beside")
	}
	if o.policy == "" {
		return o.list(cmd.OutOrStdout(), f)
	}
	again := replayer{cmd: cmd, policy: o.policy, beside: &o.beside, actions: map[string]int{}, groups: map[string]*replayed{}}
	defer again.close()
	for e, err := range f.entries() {
		if err == nil {
			err = again.entry(e, f.r.Header())
		}
		if err != nil {
			return err
		}
	}
	if again.n == 0 { // No difference would say that all is as it was.
		return fmt.Errorf("%s: nothing was decided again: it has no connections", policyfile.ShownPath(file))
	}
	return o.report(cmd.OutOrStdout(), &again)
}

// A recorded is an entry in JSON.
type recorded struct {
	Event      string `json:"event"`
	Connection string `json:"connection"`
	Host       string `json:"host,omitempty"`
	Time       string `json:"time,omitempty"`
	PID        uint32 `json:"pid,omitempty"`
	Action     string `json:"action,omitempty"`
	To         string `json:"to,omitempty"`
	Layer      string `json:"layer,omitempty"`
	Filter     uint64 `json:"filter,omitempty"`
	Name       string `json:"filter_name,omitempty"`
	Callout    string `json:"callout,omitempty"`
	Rule       string `json:"rule,omitempty"`
	Why        string `json:"why,omitempty"`
}

// list prints what a file holds.
func (o *replayOptions) list(out io.Writer, f *flightFile) error {
	none, n := new(policytest.World), 0
	for e, err := range f.entries() {
		if err != nil {
			return err
		}
		n++
		in := none.Incoming(e)
		line := recorded{Event: "connection", Connection: policytest.Describe(&in), Host: e.Host, PID: e.Process}
		if !e.Time.IsZero() {
			line.Time = e.Time.UTC().Format("2006-01-02T15:04:05.000Z")
		}
		text := policytrace.Clean(line.Connection)
		if d := e.Outcome; d != nil {
			line.Action, line.To, line.Layer, line.Filter, line.Name = d.Action, d.Destination, d.Layer, d.Filter, d.FilterName
			line.Callout, line.Rule, line.Why = d.Callout, d.Rule, d.Why
			text += ": " + decision(d)
		}
		if o.json {
			err = encode(out, line)
		} else {
			_, err = fmt.Fprintln(out, text)
		}
		if err != nil {
			return err
		}
	}
	if n > 0 || o.json {
		return nil
	}
	_, err := fmt.Fprintln(out, "the file holds no connections")
	return err
}

// filterOf is the filter of an outcome as people know it. Its number, which another filter
// before it changes, is only for one without a name.
func filterOf(d *flight.Outcome) string {
	switch {
	case d.FilterName != "":
		return strconv.Quote(d.FilterName)
	case d.Filter != 0:
		return strconv.FormatUint(d.Filter, 10)
	}
	return ""
}

// decision is an outcome in a line.
func decision(d *flight.Outcome) string {
	s := d.Action
	if d.Action == policytest.Redirect {
		s += " to " + d.Destination
	}
	if by := filterOf(d); by != "" {
		s += " by filter " + by
	}
	if d.Callout != "" {
		s += fmt.Sprintf(", callout %q", d.Callout)
	}
	if d.Why != "" {
		s += ": " + d.Why
	}
	return policytrace.Clean(s + policytrace.Rule(d.Rule))
}

func (o *replayOptions) report(out io.Writer, p *replayer) error {
	for _, g := range p.order {
		if o.json {
			if err := encode(out, map[string]any{"event": "difference", "connection": g.connection, "differs": g.parts, "was": g.was, "is": g.is,
				"like_it": g.count - 1, "trace": g.trace}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "%s: %s\n  was %s\n  is  %s\n    %s\n", policytrace.Clean(g.connection), strings.Join(g.parts, ", "), g.was, g.is,
			strings.ReplaceAll(strings.TrimRight(g.trace, "\n"), "\n", "\n    "))
		if g.count > 1 {
			fmt.Fprintf(out, "  and %s more with the same cause\n", count(g.count-1))
		}
	}
	if err := o.summary(out, p); err != nil {
		return err
	}
	if p.differ > 0 {
		return exitCode(codeNo)
	}
	return nil
}

func (o *replayOptions) summary(out io.Writer, p *replayer) error {
	if o.json {
		return encode(out, map[string]any{"event": "summary", "connections": p.n, "known": p.known, "differ": p.differ, "actions": p.actions})
	}
	var parts []string
	for _, a := range slices.Sorted(maps.Keys(p.actions)) {
		parts = append(parts, fmt.Sprintf("%s %s", a, count(p.actions[a])))
	}
	_, err := fmt.Fprintf(out, "%s: %s\n%s of %s recorded decisions differ\n", connections(p.n), strings.Join(parts, ", "), count(p.differ), count(p.known))
	return err
}
