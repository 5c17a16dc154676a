// What a policy in JavaScript can use, for editors: a line
//
//     /// <reference path="sdk/callout.d.ts" />
//
// at the top of policy.js gives it words to complete and mistakes to mark. Nothing of it
// is in the module. A policy defines classify, and configure and notify if it likes.

/** A connection to decide. It is there during the call only. */
interface Call {
  /**
   * FWPS layer, of IPv4 and IPv6: ALE_CONNECT_REDIRECT 66, 67; ALE_AUTH_CONNECT 48, 50; ALE_AUTH_RECV_ACCEPT 44, 46;
   * ALE_BIND_REDIRECT 68, 69; ALE_RESOURCE_ASSIGNMENT 36, 38; ALE_AUTH_LISTEN 40, 42; ALE_FLOW_ESTABLISHED 52, 54;
   * ALE_ENDPOINT_CLOSURE 64, 65; ALE_RESOURCE_RELEASE 62, 63.
   */
  readonly layer: number;
  /** IP protocol: 6 is TCP, 17 is UDP. */
  readonly protocol: number;
  readonly inbound: boolean;
  /** FWP_CONDITION_FLAG_*: the condition flags of sdk/abi/ABI.md. */
  readonly flags: number;
  readonly connection: bigint;
  /** The filter that calls out. */
  readonly filter: bigint;
  /** Which of what follows is known: CALLOUT_PRESENT_*. */
  readonly present: number;
  readonly pid: number;
  readonly uid: number;
  /** 4 or 6. */
  readonly ipVersion: number;
  /** Who redirected the connection: 0 nobody, 1 this callout, 2 another one, 3 this one and then another. */
  readonly state: number;
  /** Whether this callout has redirected it: it is then the proxy's own. */
  readonly bySelf: boolean;
  readonly localPort: number;
  readonly remotePort: number;
  /** An address as text, such as "192.0.2.7". */
  readonly local: string;
  readonly localBytes: Uint8Array;
  readonly remote: string;
  /** 16 bytes, IPv4 as v4-mapped. */
  readonly remoteBytes: Uint8Array;
  /** An IPv4 address as a number; 0 for IPv6. */
  readonly remoteV4: number;
  /** Nanoseconds of a clock that only goes forward. */
  readonly monotonic: bigint;
  readonly interfaceIndex: number;
  /** Path of the program. */
  readonly app: string;
  readonly user: string;
  /** What the destination is called, as a proxy of kind dns or peek has learned. */
  readonly hostname: string;
  /** What this callout once gave with withRecord. */
  readonly record: Uint8Array;
  /** What it gave with withContext; empty where it did not fit. */
  readonly context: Uint8Array;
  readonly contextSize: number;
}

/** An answer. */
interface Verdict {
  /** Adds bytes that come back when the proxy's own connection is decided. */
  withRecord(bytes: string | Uint8Array): Verdict;
  /** Adds bytes for the proxy. */
  withContext(bytes: string | Uint8Array): Verdict;
  /** Says why, for the trace. */
  withReason(reason: string): Verdict;
  /** Makes a number, not zero, the context of an established flow: it comes back in the event FLOW_DELETED. */
  withCookie(cookie: number | bigint): Verdict;
  /** Takes the right away from lighter sublayers to change the decision. */
  hard(): Verdict;
  /** Keeps the context that the connection has. */
  keepContext(): Verdict;
  /** Redirects without a redirect handle, as for a proxy on another host. */
  noRecord(): Verdict;
  /** Says that equal inputs get the same answer. */
  cacheable(): Verdict;
}

/** What a policy with a function notify hears of. */
interface CalloutEvent {
  /** 1 a filter was added, 2 deleted, 3 a flow is established, 4 has ended, 5 a redirect was done. */
  readonly kind: number;
  readonly layer: number;
  readonly filter: bigint;
  readonly connection: bigint;
  /** Of a flow, as withCookie gave it. */
  readonly cookie: bigint;
}

/** Lets the connection pass. */
declare function permit(): Verdict;
/** Refuses it; reason is what the user reads. */
declare function block(reason: string): Verdict;
/** Continue: leaves the decision to the next filter. */
declare function proceed(): Verdict;
/** Says that the callout failed. The connection is blocked. */
declare function failed(reason: string): Verdict;
/** Sends it to a proxy: pid is the proxy's process, not zero for one on this host. The address is a text, or 4 or 16 bytes. */
declare function redirect(address: string | Uint8Array, port: number, pid: number): Verdict;

/** The host. What the policy does not grant throws. */
declare const host: {
  /** Writes a line to the log, at one of four levels. What is no text is written as one. */
  debug(text: unknown): void;
  log(text: unknown): void;
  warn(text: unknown): void;
  error(text: unknown): void;
  /** Random bytes, 4096 at most. */
  random(n: number): Uint8Array;
  /** Nanoseconds since 1970. */
  wall(): bigint;
  /** Reads the callout's own store; undefined where there is nothing. */
  get(key: string | Uint8Array): Uint8Array | undefined;
  /** Writes to it; what has seconds is gone after them. */
  set(key: string | Uint8Array, value: string | Uint8Array, seconds?: number): void;
  delete(key: string | Uint8Array): void;
  /** Adds to a counter of the callout, 1 without n. */
  add(name: string, n?: number | bigint): void;
  /** Whether the remote address is in a set of the policy. */
  inSet(set: number): boolean;
  /** The value of the remote address in a table of the policy. */
  lookup(table: number): number | undefined;
  /** The names that were seen to resolve to the remote address. */
  names(): string[];
  /** For calloutd test, which counts there what of a script ran. */
  counters(): ArrayBuffer;
};
