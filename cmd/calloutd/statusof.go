package main

import (
	"os"
	"time"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
)

// policyInForce is a policy that came into force now, of these files.
func policyInForce(path string, generation uint64, files hashes, file *policyfile.File) control.Policy {
	return control.Policy{File: path, Generation: generation, Digest: files.digest(), Since: time.Now(), Filters: written(file)}
}

// statusOf is the part of a status that every policy in force has.
func statusOf(r *policyrun.Runner, state string, started time.Time, policy control.Policy) control.Status {
	p := r.Policy()
	s := control.Status{Version: versionText(), PID: os.Getpid(), State: state, Started: started, Uptime: time.Since(started).Seconds(),
		Policy: policy, Callouts: map[string]control.Callout{}, Records: r.Enforcer().LiveHops()}
	for _, c := range p.File.Callouts {
		s.Callouts[string(c.ID)] = control.Figures(c.Wasm+c.GoPackage, p.Modules[c.ID].Stats())
	}
	if names := r.Names(); names.Clients > 0 {
		s.Names = &names
	}
	for _, px := range p.File.Proxies {
		s.Proxies = append(s.Proxies, control.Proxy{ID: px.ID, Kind: string(px.Kind), Address: p.Proxies[px.ID].String()})
	}
	return s
}
