package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newStatus() *cobra.Command {
	var socket string
	var asJSON, asMetrics bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what a daemon is doing: its policy, callouts, proxies, and the last reload",
		Long: `Status asks the daemon that serve started, or a gateway that has a control socket (--control).
It ends with code 1 if the daemon is not ready: it starts, or ends. A policy that was not taken
is shown, and is no reason: the one before it is in force.

With --metrics it prints the figures as Prometheus and OpenTelemetry read them, those too
that callouts count themselves; /metrics of the control socket answers the same.`,
		Example: `  calloutd status
  calloutd status --control ./control.sock --json
  calloutd status --control /run/calloutd/gateway.sock
  calloutd status --metrics > /var/lib/node_exporter/calloutd.prom.new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd.Context(), socket)
			if err != nil {
				return err
			}
			switch {
			case asMetrics:
				err = s.WriteMetrics(cmd.OutOrStdout())
			case asJSON:
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			default:
				err = printStatus(cmd.OutOrStdout(), s)
			}
			if err != nil {
				return err
			}
			if s.State != "ready" && s.State != "reloading" {
				return exitCode(codeNo)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&socket, "control", socketPath("control.sock"), "the control socket to ask")
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&asMetrics, "metrics", false, "print the text format of Prometheus")
	cmd.MarkFlagsMutuallyExclusive("json", "metrics")
	return cmd
}

func ask(ctx context.Context, socket string) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s, err := control.Ask(ctx, socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		err = fmt.Errorf("no daemon listens on %s: calloutd serve starts one, calloutd gateway --control a gateway (--control names its socket)", socket)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%s is another user's: ask as the user of the daemon", socket)
	case err != nil:
		err = fmt.Errorf("%s: %w", socket, err)
	}
	return s, err
}

func printStatus(out io.Writer, s control.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("state", "%s, process %d, for %v", s.State, s.PID, time.Duration(s.Uptime*float64(time.Second)).Round(time.Second))
	row("policy", "%s, generation %d, %s, since %s", policytrace.Clean(s.Policy.File), s.Policy.Generation, counted(s.Policy.Filters, "filter"), s.Policy.Since.Format(time.RFC3339))
	row("digest", "%s", s.Policy.Digest)
	for _, id := range slices.Sorted(maps.Keys(s.Callouts)) {
		c := s.Callouts[id]
		row("callout", "%s (%s): %d decisions, %d failures%s%s", policytrace.Clean(id), policytrace.Clean(c.Module), c.Decisions, c.Failures, dropped(c.EventsDropped), in(" in quarantine: ", policytrace.Clean(c.Quarantined)))
		for _, name := range slices.Sorted(maps.Keys(c.Metrics)) {
			row("", "%s %d", policytrace.Clean(name), c.Metrics[name])
		}
	}
	for _, p := range s.Proxies {
		row("proxy", "%s (%s) at %s", policytrace.Clean(p.ID), p.Kind, p.Address)
	}
	row("records", "%d", s.Records)
	if r := s.Remote; r != nil {
		row("remote", "%s: %d clients, %d sockets, %d requests, %d refused", policytrace.Clean(r.Address), r.Clients, r.Sockets, r.Requests, r.Refused)
	}
	if s.Cgroup != "" {
		row("cgroup", "%s", policytrace.Clean(s.Cgroup))
	}
	if g := s.Gateway; g != nil {
		row("gateway", "table %s, for %s: its rules are %s, its guard is %s", g.Table, strings.Join(g.Interfaces, ", "), there(g.Rules), there(g.Guard))
	}
	if c := s.Connections; c != nil {
		row("connections", "%d of %d that may be, %d carried up to now%s", c.Open, c.Max, c.Carried, each(c.Refused, "refused"))
	}
	if d := s.Datagrams; d != nil {
		row("datagrams", "%s, %d bytes wait%s", counted(int(d.Flows), "flow"), d.Bytes, each(d.Lost, "lost"))
	}
	if n := s.Names; n != nil {
		row("names", "of addresses: %d, in %d bytes; %d were forgotten before their time, %d answers were to clients that are too many", n.Addresses, n.Bytes, n.Forgotten, n.Crowded)
	}
	if s.Gateway != nil { // It reloads nothing.
		return w.Flush()
	}
	row("reloads", "%d, of which %d failed; %d earlier policies are kept, for 10 s or while they have flows", s.Reload.Attempts, s.Reload.Failures, s.Reload.Retired)
	for m := range strings.Lines(s.Reload.Error) {
		row("not taken", "%s", policytrace.Clean(strings.TrimSuffix(m, "\n")))
	}
	return w.Flush()
}

func dropped(events uint64) string {
	if events == 0 {
		return ""
	}
	return fmt.Sprintf(", %d events that it was too slow to hear", events)
}

// each are those that something happened to, by the reason.
func each(n map[string]uint64, what string) (s string) {
	for _, why := range slices.Sorted(maps.Keys(n)) {
		if n[why] > 0 {
			s += fmt.Sprintf(", %d %s: %s", n[why], what, why)
		}
	}
	return s
}

func there(is bool) string {
	if is {
		return "there"
	}
	return "away"
}

func in(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}
