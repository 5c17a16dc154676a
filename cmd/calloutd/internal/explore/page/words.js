// What layers and controls are called, for people who have not met them.

const layers = {
  ALE_BIND_REDIRECT: ["bind redirect", "Which local address?", "The socket is about to get a local address. A callout may give it another one."],
  ALE_RESOURCE_ASSIGNMENT: ["assignment", "May it have the port?", "The socket takes its address and port. A filter may refuse them."],
  ALE_AUTH_LISTEN: ["listen", "May it listen?", "The socket is about to take connections."],
  ALE_CONNECT_REDIRECT: ["connect redirect", "Where does it go?", "A callout may send the connection elsewhere, mostly to a proxy on this host. It leaves a record, which it gets back when the proxy connects, and a context for the proxy."],
  ALE_AUTH_CONNECT: ["authorize", "May it go there?", "The destination is final now. Filters and callouts permit or block it."],
  ALE_AUTH_RECV_ACCEPT: ["authorize", "May it come in?", "A connection arrives. Filters and callouts permit or block it."],
  ALE_FLOW_ESTABLISHED: ["established", "It is established", "The connection exists. Callouts hear of it; nobody can refuse it here."],
  ALE_ENDPOINT_CLOSURE: ["closed", "The socket is closed", "Callouts hear of the end. Their answer changes nothing."],
  ALE_RESOURCE_RELEASE: ["release", "The port is free again", "Callouts hear of the end. Their answer changes nothing."],
};

const controls = {
  SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: ["ask: records", "Which redirects brought it here?",
    "The proxy asks Winsock Kernel for the records of the connection that it accepted. They are sealed: it can carry them, not change them."],
  SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: ["ask: context", "Whom was it for?",
    "The proxy asks Winsock Kernel for the context that the callout left for it, mostly the address that the program wanted."],
  SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: ["set records", "The records go on",
    "The proxy puts the records on the socket of its own connection, so that the callout recognizes it and does not redirect it again."],
};

// layer is the short name, the question and the explanation of a layer.
export function layer(name) {
  const [short, question, says] = layers[name.replace(/_V[46]$/, "")] ?? [name, name, ""];
  return { short, question, says };
}

export function control(name) {
  const [short, question, says] = controls[name] ?? [name, name, ""];
  return { short, question, says };
}

// states are what a callout is told of the records of a connection.
export const states = {
  "not-redirected": "nobody redirected it before",
  "redirected-by-self": "it comes from the proxy that this callout redirected it to",
  "redirected-by-other": "another callout redirected it last",
  "previously-redirected-by-self": "this callout redirected it, and another one since",
};

// weight is a filter's weight: what the policy gave, and what its conditions add.
export function weight(w = 0n) {
  const range = w >> 60n;
  return range > 0n ? `weight ${range}` : `weight 0x${w.toString(16)}`;
}

export function count(n, one, many) {
  return n === 1 ? `1 ${one}` : `${n} ${many}`;
}
