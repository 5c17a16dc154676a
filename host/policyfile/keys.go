package policyfile

import (
	"math"
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/sdk/abi"
)

// The tables below are the file format: the reader takes what they say and
// schema.json is made of them.

// A mapping is a YAML mapping with known keys.
type mapping struct {
	doc  string
	keys []key
}

// A key is one key of a mapping.
type key struct {
	name     string
	required bool
	form     form
	doc      string
}

func words(w ...string) func() []string { return func() []string { return w } }

// Version is the version of the format.
const Version = 1

// maxID keeps filter ids exact in every JSON reader.
const maxID = 1<<53 - 1

var fileKeys = mapping{"A policy.", []key{
	{"version", true, number{Version, Version}, "The version of this format."},
	{"provider", false, inner{&providerKeys}, "The provider of this file: it owns what names no other. Two files that are looked at beside each other (--with) are told apart by it."},
	{"providers", false, list{&providerKeys}, "Who owns objects. For people only."},
	{"provider_contexts", false, list{&contextKeys}, "Data of providers that filters refer to."},
	{"sublayers", false, list{&sublayerKeys}, "Groups of filters that are arbitrated together, the heaviest first. universal (weight 0x8000) and inspection (0) exist already."},
	{"sets", false, list{&setKeys}, "Sets of networks that callouts ask about."},
	{"tables", false, list{&tableKeys}, "Tables of networks that callouts look things up in."},
	{"callouts", false, list{&calloutKeys}, "WebAssembly modules that filters ask."},
	{"proxies", false, list{&proxyKeys}, "Local proxies that calloutd starts, and proxies of others."},
	{"filters", false, list{&filterKeys}, "What happens to which connections."},
	{"invariants", false, list{&invariantKeys}, "What must always be so. calloutd fuzz and cases that expect sound look for connections for which it is not."},
}}

var providerKeys = mapping{"FWPM_PROVIDER: who owns objects.", []key{
	{"id", true, identifier{"provider"}, "The name that other objects use."},
	{"name", false, text{}, "The name for people."},
}}

var contextKeys = mapping{"FWPM_PROVIDER_CONTEXT: data of a provider. Callouts that a Go program registers find it through their filters; WebAssembly modules have config.", []key{
	{"id", true, identifier{"provider context"}, "The name that filters use."},
	{"name", false, text{}, "The name for people."},
	{"provider", false, reference{"provider"}, "Who owns it."},
	{"data", false, either{text{}, &dataKeys, ""}, "The data: a text, or {base64: TEXT} for any bytes."},
}}

var dataKeys = mapping{"Bytes.", []key{
	{"base64", true, text{}, "The bytes in base64."},
}}

var sublayerKeys = mapping{"FWPM_SUBLAYER: filters that are arbitrated together.", []key{
	{"id", true, identifier{"sublayer"}, "The name that filters use."},
	{"name", false, text{}, "The name for people."},
	{"provider", false, reference{"provider"}, "Who owns it."},
	{"weight", true, number{0, math.MaxUint16}, "The order of the sublayers of a layer, the heaviest first."},
}}

var setKeys = mapping{"Networks. It has either prefixes or file.", []key{
	{"id", true, identifier{"set"}, "The name that callouts use."},
	{"prefixes", false, several{prefix{}}, "Addresses and networks."},
	{"file", false, text{}, "A file with an address or a network on each line, relative to the policy's folder. # begins a comment."},
}}

var tableKeys = mapping{"A number for each of some networks; the longest prefix counts. It has either rows or file.", []key{
	{"id", true, identifier{"table"}, "The name that callouts use."},
	{"rows", false, list{&rowKeys}, "The networks and their numbers."},
	{"file", false, text{}, "A file with a network and its number on each line, relative to the policy's folder. # begins a comment."},
}}

var rowKeys = mapping{"A row of a table.", []key{
	{"prefix", true, prefix{}, "An address or a network."},
	{"value", true, rowValue, "Its number."},
}}

var rowValue = number{0, math.MaxInt32}

var calloutKeys = mapping{"FWPM_CALLOUT: a WebAssembly module that filters ask. It has either wasm, go or model.", []key{
	{"id", true, identifier{"callout"}, "The name that filters use."},
	{"name", false, text{}, "The name for people."},
	{"provider", false, reference{"provider"}, "Who owns it."},
	{"wasm", false, text{}, "The module's file, relative to the policy's folder."},
	{"go", false, text{}, "A folder with Go source that is built on the spot, relative to the policy's folder."},
	{"model", false, choice{"a model of a callout", words(string(ModelRedirector), string(ModelBlocker)), nil}, "What another product's callout does, for sim, why, test, diff and replay: redirector sends connections to its proxy, blocker blocks, which vetoes what lighter or heavier sublayers permit. Nothing is enforced with one."},
	{"applicable_layer", false, choice{"one layer", layersOfAFamily, layerElsewhere}, "The only layer whose filters may ask it. Without one: every layer."},
	{"config", false, anything{}, "The module's configuration, handed over as JSON. ${proxy:ID} in a text is where that proxy listens, ${set:ID} and ${table:ID} the number that the module asks for, ${pid} the process of calloutd, $${ a plain ${."},
	{"sets", false, several{reference{"set"}}, "The sets that the module may ask (cidr_match), numbered from 0."},
	{"tables", false, several{reference{"table"}}, "The tables that it may ask (table_lookup), numbered from 0."},
	{"capabilities", false, several{choice{"a capability", capabilityNames, nil}}, "What else it may use of the host. Without this key: all of them, which reach nothing outside calloutd. What looks up networks comes with sets and tables, names with a proxy of kind dns. A module that requires one it does not have is refused."},
	{"limits", false, inner{&limitKeys}, "What it may cost."},
	{"on_failure", false, choice{"a failure mode", words("block", "continue"), nil}, "What happens when the module fails: block (default), or continue with the next filter."},
	{"max_failures", false, number{0, 1000}, "So many failures in ten seconds put it in quarantine, where it is not asked (default: 5). 0: never."},
}}

var limitKeys = mapping{"What a callout may cost.", []key{
	{"memory_mib", false, number{1, 1024}, "The memory of one instance, in MiB (default: 16)."},
	{"fuel_slices", false, number{1, maxSlices}, "The budget of one decision, in slices of 65536 simple instructions (default: 256)."},
	{"start_fuel_slices", false, number{1, maxSlices}, "The budget of each step of starting an instance (default: 65536)."},
	{"slots", false, number{1, 1024}, "How many decisions run at once (default: one a processor)."},
	{"spares", false, number{1, 1024}, "How many instances wait to replace one that fails (default: 1)."},
}}

// maxSlices is the most that package guest takes.
const maxSlices = 1 << 24

// grantable are the capabilities that can be named. A callout gets those of sets
// and tables with its first one, and calloutd sees no names resolve.
const grantable = abi.CapLog | abi.CapRandom | abi.CapWall | abi.CapKV | abi.CapMetric

func capabilityNames() []string {
	var names []string
	for bit, name := range abi.Capabilities {
		if grantable>>bit&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

func parseCapability(name string) uint32 {
	return 1 << slices.Index(abi.Capabilities, name)
}

var proxyKeys = mapping{"A local proxy of calloutd, or one of somebody else that connections are handed to.", []key{
	{"id", true, identifier{"proxy"}, "The name that ${proxy:ID} uses."},
	{"kind", true, choice{"a proxy kind", words(proxyKinds()...), nil}, "Of calloutd: inspect answers HTTP with what it learned about the connection; forward carries the connection to where it was going; peek does so too, once it knows the name that the client asks for (TLS SNI, HTTP Host), which is PEER_NAME of its own connection; dns carries DNS queries and remembers the answers: they are PEER_NAME of connections to those addresses. Of others: proxy-protocol (version 2), socks5 and http-connect are told where the connection was going, and then it is the program's own."},
	{"listen", false, listen{"127.0.0.1:0"}, "Where a proxy of calloutd listens. Port 0 (default: 127.0.0.1:0) lets the system choose."},
	{"address", false, listen{"192.0.2.1:3128 (names are not looked up)"}, "Where a proxy of somebody else is. Of a dns proxy: the resolver that it asks, in the place of the one that the program asked."},
	{"forgets_records", false, truth{}, "A model of a proxy of another product that does not set the redirect records on its own connections (RS-07). Those of calloutd set them: nothing is enforced with this."},
	{"credentials", false, inner{&credentialKeys}, "What a socks5 or http-connect proxy is shown: user:password, which do not stand in the policy."},
}}

var credentialKeys = mapping{"Where user:password comes from. It has either file or env.", []key{
	{"file", false, text{}, "A file with user:password on its first line, relative to the policy's folder."},
	{"env", false, text{}, "An environment variable of calloutd."},
}}

var filterKeys = mapping{"FWPM_FILTER: what happens to connections for which every condition holds. Conditions on one field are alternatives.", []key{
	{"name", true, text{}, "What denials and traces call it."},
	{"id", false, number{1, maxID}, "Its run-time number. Without one, filters are numbered in the order of the file. A filter for both families takes two numbers, IPv4 first."},
	{"layer", true, choice{"a layer", layerNames, layerElsewhere}, "Where it is asked. Without _V4 or _V6 it is a filter for both families."},
	{"provider", false, reference{"provider"}, "Who owns it."},
	{"provider_context", false, reference{"provider context"}, "Data for its callout."},
	{"sublayer", false, reference{"sublayer"}, "The sublayer it is in (default: universal)."},
	{"weight", false, either{number{0, 15}, &weightKeys, "a number from 0 to 15 (FWP_UINT8), {exact: N} (FWP_UINT64) or no such key (FWP_EMPTY)"}, "The order in the sublayer, the heaviest first: 0 to 15 ranks it and leaves the rest to the engine, {exact: N} is the whole weight. Without one the engine chooses: more specific is heavier."},
	{"action", true, choice{"an action", actionNames, nil}, "What it does. The callout actions ask a callout."},
	{"callout", false, reference{"callout"}, "The callout it asks."},
	{"hard", false, truth{}, "Lighter sublayers cannot change the decision (FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT)."},
	{"permit_if_callout_unregistered", false, truth{}, "Permit instead of block while the callout is not registered."},
	{"conditions", false, list{&conditionKeys}, "When it matches. None: always."},
}}

var invariantKeys = mapping{"What must become of all connections that are so. Nothing enforces it.", []key{
	{"name", true, text{}, "What reports call it."},
	{"program", false, text{}, "Of this program; a path that ends in / is a folder and all below."},
	{"user", false, number{0, math.MaxUint32}, "Of the user with this number."},
	{"protocol", false, choice{"a protocol", words("tcp", "udp"), nil}, "Of this protocol."},
	{"to", false, several{prefix{}}, "To these networks."},
	{"not_to", false, several{prefix{}}, "To none of these networks."},
	{"ports", false, several{number{1, math.MaxUint16}}, "To these ports."},
	{"must", true, several{choice{"an outcome", words("permit", "block", "redirect"), nil}}, "One of these must become of it."},
	{"proxies", false, several{reference{"proxy"}}, "A redirect must go to one of these proxies."},
}}

var weightKeys = mapping{"A whole weight.", []key{
	{"exact", true, number{0, math.MaxUint64}, "The weight."},
}}

var conditionKeys = mapping{"FWPM_FILTER_CONDITION.", []key{
	{"field", true, choice{"a field", fieldNames, nil}, "What is compared."},
	{"match", false, choice{"a match type", fwp.MatchNames, nil}, "How (default: range for a range such as 8000-8999, else equal). prefix and not_prefix test the end of the value."},
	{"value", true, values{}, "What it is compared with. A list means alternatives; a list of flags is one set of flags. FWP_EMPTY: the field is not known."},
}}

var actions = []struct {
	name   string
	action fwp.Action
}{
	{"permit", fwp.ActionPermit},
	{"block", fwp.ActionBlock},
	{"callout", fwp.ActionCalloutUnknown},
	{"callout-terminating", fwp.ActionCalloutTerminating},
	{"callout-inspection", fwp.ActionCalloutInspection},
}

func actionNames() []string {
	var names []string
	for _, a := range actions {
		names = append(names, a.name)
	}
	return names
}

func parseAction(name string) fwp.Action {
	for _, a := range actions {
		if a.name == name {
			return a.action
		}
	}
	return 0
}
