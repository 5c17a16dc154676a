package main

// An event is one line of --json. README.md lists the kinds.
type event struct {
	Event    string `json:"event"`
	Layer    string `json:"layer,omitempty"`
	Program  string `json:"program,omitempty"`
	PID      uint32 `json:"pid,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Original string `json:"original_destination,omitempty"`
	Proxy    string `json:"proxy,omitempty"` // the proxy of the policy that To is
	Action   string `json:"action,omitempty"`
	Steps    []step `json:"steps,omitempty"`

	Filter  uint64 `json:"filter,omitempty"`
	Name    string `json:"filter_name,omitempty"`
	Place   string `json:"filter_place,omitempty"` // file:line
	Callout string `json:"callout,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Why     string `json:"why,omitempty"`
}

// A step is one filter's part in a classification.
type step struct {
	Filter   uint64 `json:"filter"`
	Name     string `json:"filter_name"`
	Place    string `json:"filter_place,omitempty"`
	Sublayer string `json:"sublayer"`
	Callout  string `json:"callout,omitempty"`
	State    string `json:"redirect_state,omitempty"` // relative to the callout
	Action   string `json:"action"`                   // or "redirect"
	To       string `json:"to,omitempty"`             // of a redirect
	Hard     bool   `json:"hard,omitempty"`
	Veto     bool   `json:"veto,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Why      string `json:"why,omitempty"`
}
