// Command first-callout is a callout in a few lines: it blocks connections to
// ports whose protocols are not encrypted.
package main

import "github.com/calloutd/calloutd/sdk/go/callout"

func init() { callout.Register(policy{}) }

func main() {}

type policy struct{}

var plain = map[uint16]string{21: "FTP", 23: "telnet", 110: "POP3"}

func (policy) Classify(c *callout.Call) callout.Verdict {
	if name, ok := plain[c.Remote.Port()]; ok {
		return callout.Block(name + " is not encrypted")
	}
	return callout.Continue() // Another filter may decide.
}
