// The words of a policy, in JavaScript. C has no literal for many lines.
extern "C" const char callout_prelude[];
extern "C" const char callout_prelude[] = R"js("use strict";
class Verdict {
  constructor(action, reason) {
    this.action = action;
    this.flags = 0;
    this.reason = reason;
  }
  /** Adds bytes that come back when the proxy's own connection is decided. */
  withRecord(bytes) { this.record = bytes; return this; }
  /** Adds bytes for the proxy. */
  withContext(bytes) { this.context = bytes; return this; }
  /** Says why, for the trace. */
  withReason(reason) { this.reason = reason; return this; }
  /** Makes a number, not zero, the context of an established flow: it comes back
   *  in the event FLOW_DELETED. */
  withCookie(cookie) { this.cookie = cookie; return this; }
  /** Takes the right away from lighter sublayers to change the decision. */
  hard() { this.flags |= 1; return this; }
  /** Keeps the context that the connection has. */
  keepContext() { this.flags |= 2; return this; }
  /** Redirects without a redirect handle, as for a proxy on another host. */
  noRecord() { this.flags |= 4; return this; }
  /** Says that equal inputs get the same answer. */
  cacheable() { this.flags |= 8; return this; }
}
/** Lets the connection pass. */
globalThis.permit = () => new Verdict(1);
/** Refuses it; reason is what the user reads. */
globalThis.block = reason => new Verdict(2, reason);
/** Continue: leaves the decision to the next filter. */
globalThis.proceed = () => new Verdict(4);
/** Says that the callout failed. The connection is blocked. */
globalThis.failed = reason => new Verdict(0xffff, reason);
/** Sends it to a proxy: pid is the proxy's process, not zero for one on this host. */
globalThis.redirect = (address, port, pid) => {
  const v = new Verdict(3);
  v.address = address;
  v.port = port;
  v.pid = pid;
  return v;
};
)js";
