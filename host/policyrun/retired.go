package policyrun

import (
	"slices"
	"sync"
	"time"
)

// A policy that was replaced stays for this long, so that decisions which began
// under it end under it, and longer while its callouts have flows. No more than a
// few wait.
const (
	retireAfter = 10 * time.Second
	maxRetired  = 8
)

// retired are the policies that are in force no more.
type retired struct {
	mu       sync.Mutex
	policies []former
	timer    *time.Timer
}

type former struct {
	policy *Policy
	since  time.Time
}

// add keeps a policy until nothing needs it.
func (r *retired) add(p *Policy) {
	r.mu.Lock()
	r.policies = append(r.policies, former{p, time.Now()})
	var over []former
	if n := len(r.policies) - maxRetired; n > 0 {
		over, r.policies = r.policies[:n:n], slices.Clone(r.policies[n:])
	}
	r.later()
	r.mu.Unlock()
	for _, f := range over {
		f.policy.Close()
	}
}

// later looks again while any are left. The caller holds mu.
func (r *retired) later() {
	if len(r.policies) == 0 || r.timer != nil {
		return
	}
	r.timer = time.AfterFunc(retireAfter, r.sweep)
}

// sweep closes the policies that nothing needs any more.
func (r *retired) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	now := time.Now()
	r.policies = slices.DeleteFunc(r.policies, func(f former) bool {
		gone := now.Sub(f.since) >= retireAfter && f.policy.idle()
		if gone {
			f.policy.Close()
		}
		return gone
	})
	r.later()
}

// Retired is how many policies are in force no more and still kept: each for ten seconds,
// and longer while its callouts have flows.
func (r *Runner) Retired() int {
	r.old.mu.Lock()
	defer r.old.mu.Unlock()
	return len(r.old.policies)
}

// close closes all of them. A sweep that waits meanwhile finds none.
func (r *retired) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	for _, f := range r.policies {
		f.policy.Close()
	}
	r.policies = nil
}
