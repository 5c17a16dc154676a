// Command allow-list is a callout that permits connections to networks of a set
// only, and to the port that a table has for the network.
package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/calloutd/calloutd/sdk/abi"
	"github.com/calloutd/calloutd/sdk/go/callout"
)

func init() { callout.Register(new(policy)) }

func main() {}

// A policy is the numbers of its sets and of its table.
type policy struct {
	Allowed int `json:"allowed"`
	Blocked int `json:"blocked"`
	Ports   int `json:"ports"`
}

func (p *policy) Capabilities() (required, optional uint32) { return abi.CapSets | abi.CapTables, 0 }

func (p *policy) Configure(config []byte) error { return json.Unmarshal(config, p) }

func (p *policy) Classify(c *callout.Call) callout.Verdict {
	blocked, err := callout.InSet(p.Blocked)
	if err != nil {
		return callout.Error("the blocked set: " + err.Error())
	}
	allowed, err := callout.InSet(p.Allowed)
	switch {
	case err != nil:
		return callout.Error("the allowed set: " + err.Error())
	case blocked:
		return callout.Block("the destination is on the block list")
	case !allowed:
		return callout.Block("the destination is not on the allow list")
	}
	port, err := callout.Lookup(p.Ports)
	switch {
	case errors.Is(err, callout.ErrNotFound): // No network of the table: any port.
	case err != nil:
		return callout.Error("the table of ports: " + err.Error())
	case port != int(c.Remote.Port()):
		return callout.Block(fmt.Sprintf("this network may be reached at port %d only", port))
	}
	return callout.Continue() // Another filter may decide.
}
