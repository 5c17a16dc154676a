package policytest

// A key is one of a mapping of the case file.
type key struct {
	name string
	what string
	read func(*reader, value, *Step) // nil: it names an earlier step of the case
}

// connectionKeys describe a connection.
var connectionKeys = []key{
	{"program", "path of the program, or unknown (default: /usr/bin/curl)", (*reader).program},
	{"user", "the program's user: a number, a name of this system or unknown (default: 1000)", (*reader).user},
	{"groups", "numbers of the user's groups", (*reader).groups},
	{"pid", "number of the process (default: 1000)", (*reader).pid},
	{"to", "where it goes: ADDR:PORT, or proxy:ID", (*reader).to},
	{"from", "where it comes from, ADDR:PORT (default: a socket that is not bound)", (*reader).from},
	{"protocol", "tcp (default), udp or a number", (*reader).protocol},
	{"interface", "LUID of the interface that it uses (IP_LOCAL_INTERFACE; default: not known)", (*reader).localInterface},
	{"peer_name", "what its peer is called, as a proxy of kind dns or peek has learned it (PEER_NAME)", (*reader).peerName},
	{"inbound", "the program accepts the connection: from is who connects, to is the program's address", (*reader).inbound},
	{"listen", "the program listens at to; nobody connects", (*reader).listen},
	{"records_of", "the step whose redirected connection this program accepted: its records are set, and to is the original destination unless the step has its own", nil},
	{"reauthorizes", "the step whose connection, still open, is asked about again as after a change of the policy (IS_REAUTHORIZE, POLICY_CHANGE); everything else is as it was", nil},
}

// expectationKeys say what must come of it.
var expectationKeys = []key{
	{"action", "permit, block or redirect", (*reader).action},
	{"destination", "where it goes in the end: ADDR:PORT or proxy:ID", (*reader).destination},
	{"context", "the redirect context for the proxy: text, {hex: ...} or {sockaddr: [ADDR:PORT, ...]}", (*reader).blob},
	{"record", "the record for the callout, like context", (*reader).blob},
	{"filter", "name or number of the filter that made it so", (*reader).filter},
	{"callout", "the callout that made it so", (*reader).callout},
	{"provider", "the provider of the filter that made it so", (*reader).provider},
	{"layer", "where it was made so; without _V4 or _V6 either", (*reader).layer},
	{"rule", "the rule that made it so, such as ARB-06", (*reader).word},
	{"reason", "a part of the reason", (*reader).word},
	{"redirect_state", "what the callout is told of the connection", (*reader).state},
	{"sound", "true: no callout fails, the answer is always the same, nothing loops through a proxy, and every invariant holds; action is not needed then", (*reader).sound},
}

func names(keys []key, more ...string) []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.name)
	}
	return append(out, more...)
}

// alone are the keys of a connection that do not need an earlier step.
func alone() (out []string) {
	for _, k := range connectionKeys {
		if k.read != nil {
			out = append(out, k.name)
		}
	}
	return out
}

func find(keys []key, name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}
