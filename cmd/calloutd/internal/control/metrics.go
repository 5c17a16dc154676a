package control

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A figure is one number in the text format of Prometheus.
type figure struct {
	labels string // as {callout="x"}; empty for none
	value  float64
}

// A family is a metric with its figures.
type family struct {
	name, kind, help string
	figures          []figure
}

// WriteMetrics writes a status in the text format of Prometheus, version 0.0.4, which
// OpenTelemetry and others read too. Counters of a callout begin anew with each policy,
// as readers of counters expect of a process that begins anew.
func (s Status) WriteMetrics(w io.Writer) error {
	var b strings.Builder
	for _, f := range append(s.daemon(), s.callouts()...) {
		if len(f.figures) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP calloutd_%s %s\n# TYPE calloutd_%s %s\n", f.name, f.help, f.name, f.kind)
		for _, x := range f.figures {
			fmt.Fprintf(&b, "calloutd_%s%s %s\n", f.name, x.labels, strconv.FormatFloat(x.value, 'f', -1, 64))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// daemon are the figures that there is one of.
func (s Status) daemon() []family {
	one := func(v float64) []figure { return []figure{{"", v}} }
	out := []family{
		{"build_info", "gauge", "The version; always 1.", []figure{{labels("version", s.Version), 1}}},
		{"ready", "gauge", "Whether connections are decided.", one(truth(s.State == "ready" || s.State == "reloading"))},
		{"start_time_seconds", "gauge", "When the daemon began.", one(seconds(s.Started))},
		{"policy_generation", "gauge", "How many policies came into force.", one(float64(s.Policy.Generation))},
		{"policy_since_seconds", "gauge", "Since when this one is.", one(seconds(s.Policy.Since))},
		{"policy_filters", "gauge", "Filters in force, as the policy file has them.", one(float64(s.Policy.Filters))},
		{"policy_reloads_total", "counter", "Attempts to put another policy into force.", one(float64(s.Reload.Attempts))},
		{"policy_reload_failures_total", "counter", "Those that failed.", one(float64(s.Reload.Failures))},
		{"policy_reload_failed", "gauge", "Whether the last one failed: what is in force is not what is in the file.", one(truth(s.Reload.Error != ""))},
		{"policies_retired", "gauge", "Earlier policies that are kept, for 10 s or while they have flows.", one(float64(s.Reload.Retired))},
		{"records", "gauge", "Redirects of connections that exist.", one(float64(s.Records))},
	}
	if r := s.Remote; r != nil {
		out = append(out,
			family{"remote_clients", "gauge", "Proxies that are connected to the service for other programs.", one(float64(r.Clients))},
			family{"remote_sockets", "gauge", "Accepted sockets that it knows.", one(float64(r.Sockets))},
			family{"remote_requests_total", "counter", "What it was asked.", one(float64(r.Requests))},
			family{"remote_refused_total", "counter", "What it refused.", one(float64(r.Refused))})
	}
	if n := s.Names; n != nil {
		out = append(out,
			family{"names_addresses", "gauge", "Addresses that names are known of, of each client by itself.", one(float64(n.Addresses))},
			family{"names_bytes", "gauge", "Memory that names take.", one(float64(n.Bytes))},
			family{"names_forgotten_total", "counter", "Addresses whose names were forgotten before their time, for want of room.", one(float64(n.Forgotten))},
			family{"names_crowded_total", "counter", "Answers to clients that were too many to have names of their own.", one(float64(n.Crowded))})
	}
	if g := s.Gateway; g != nil {
		out = append(out,
			family{"gateway_rules", "gauge", "Whether all rules of the gateway are there.", one(truth(g.Rules))},
			family{"gateway_guard", "gauge", "Whether what drops while they are not is there.", one(truth(g.Guard))})
	}
	if c := s.Connections; c != nil {
		out = append(out,
			family{"connections_open", "gauge", "Connections of TCP that are carried.", one(float64(c.Open))},
			family{"connections_max", "gauge", "Those that may be.", one(float64(c.Max))},
			family{"connections_carried_total", "counter", "Connections of TCP that reached where they may go.", one(float64(c.Carried))},
			family{"connections_refused_total", "counter", "Connections, and flows of datagrams, that were refused, by the reason.", byReason(c.Refused)})
	}
	if d := s.Datagrams; d != nil {
		out = append(out,
			family{"datagram_flows", "gauge", "Flows of datagrams that are carried.", one(float64(d.Flows))},
			family{"datagram_bytes", "gauge", "Memory that datagrams take that wait.", one(float64(d.Bytes))},
			family{"datagram_bytes_max", "gauge", "Memory that they may take.", one(float64(d.MaxBytes))},
			family{"datagrams_lost_total", "counter", "Datagrams that got lost, by the reason.", byReason(d.Lost)})
	}
	return out
}

// callouts are the figures that each callout has.
func byReason(counts map[string]uint64) (out []figure) {
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, figure{labels("why", why), float64(counts[why])})
	}
	return out
}

func (s Status) callouts() []family {
	out := []family{
		{"callout_decisions_total", "counter", "Decisions that the callout was asked for.", nil},
		{"callout_failures_total", "counter", "Decisions that it failed.", nil},
		{"callout_events_dropped_total", "counter", "Events that it was too slow to hear of.", nil},
		{"callout_quarantined", "gauge", "Whether it is in quarantine.", nil},
		{"callout_metric", "untyped", "What the callout counts itself (metric_add), by the name that it gave.", nil},
	}
	for _, id := range slices.Sorted(maps.Keys(s.Callouts)) {
		c, is := s.Callouts[id], labels("callout", id)
		for i, v := range []float64{float64(c.Decisions), float64(c.Failures), float64(c.EventsDropped), truth(c.Quarantined != "")} {
			out[i].figures = append(out[i].figures, figure{is, v})
		}
		for _, name := range slices.Sorted(maps.Keys(c.Metrics)) {
			out[4].figures = append(out[4].figures, figure{labels("callout", id, "name", name), float64(c.Metrics[name])})
		}
	}
	return out
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labels are names and values in turn.
func labels(pairs ...string) string {
	var out []string
	for pair := range slices.Chunk(pairs, 2) {
		out = append(out, fmt.Sprintf(`%s="%s"`, pair[0], escape.Replace(pair[1])))
	}
	return "{" + strings.Join(out, ",") + "}"
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
