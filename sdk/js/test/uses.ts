/// <reference path="../callout.d.ts" />
// What a policy may write and what is marked in an editor, for TypeScript's checker: a
// line that is no mistake after all is one, too.

function classify(call: Call): Verdict {
  const ports: number = call.localPort + call.remotePort;
  const bytes: Uint8Array = call.record;
  const first: bigint = call.connection + call.filter;
  if (call.bySelf || call.inbound) return permit();
  if (call.app.startsWith("/usr/") && host.inSet(1)) return block("no");
  if (host.lookup(0) === undefined && host.names().includes(call.hostname)) return proceed().cacheable();
  host.set("key", bytes, 60);
  host.add("seen");
  host.add("bytes", 1n);
  host.log(host.get(call.remoteBytes)?.length ?? ports);
  // @ts-expect-error a call is read
  call.remotePort = 80;
  // @ts-expect-error a BigInt is no number
  const id: number = call.connection;
  // @ts-expect-error there may be nothing
  host.get("key").length;
  // @ts-expect-error sets have numbers
  host.inSet("blocked");
  // @ts-expect-error a name of a counter is a text
  host.add(bytes);
  // @ts-expect-error a block says why
  block();
  // @ts-expect-error the word is remotePort
  call.port;
  // @ts-expect-error a redirect names the proxy's process
  redirect("127.0.0.1", 8443);
  // @ts-expect-error a port is a number
  redirect("127.0.0.1", "8443", 7);
  // @ts-expect-error four bytes are a Uint8Array
  redirect([127, 0, 0, 1], 8443, 7);
  // @ts-expect-error a reason is a text
  proceed().withReason(bytes);
  return redirect(Uint8Array.of(127, 0, 0, 1), 8443, 7).withRecord(bytes).withContext("text").withCookie(first).withReason("why").hard();
}

function notify(event: CalloutEvent) {
  const cookie: bigint = event.cookie;
  // @ts-expect-error an event is of no program
  return [cookie, event.app];
}

// @ts-expect-error an answer is a verdict
const answer: (call: Call) => Verdict = call => call.remotePort;
