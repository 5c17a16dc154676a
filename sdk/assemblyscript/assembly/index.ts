// Callouts in AssemblyScript: a policy gets a Call and answers with permit, block,
// proceed (continue is a word of the language) or redirect.
//
//     import { Call, Verdict, block, proceed, register } from "callout/assembly";
//     export * from "callout/assembly/exports";
//
//     register((call: Call): Verdict =>
//       call.remotePort == 80 ? block("no plain HTTP") : proceed());
//
// There is one Call and one Verdict, used again for every decision: neither the
// one nor the other may be kept. They and their Bytes are unmanaged: the collector
// need not know of them, so that a decision does not tell it where they are.

import * as abi from "./abi";

/** The exchange block. */
export const BLOCK: usize = memory.data(abi.BLOCK_SIZE, abi.BLOCK_ALIGN);

/** Bytes in memory that somebody else owns. */
@final @unmanaged
export class Bytes {
  ptr: usize = 0;
  length: u32 = 0;

  /** Reports whether they begin with a text. */
  startsWith(prefix: string): bool {
    const n = <u32>prefix.length;
    if (n > this.length) return false;
    // The loop is of loads alone: it calls nothing and touches no reference.
    const text = changetype<usize>(prefix), at = this.ptr;
    let i: u32 = 0;
    for (; i < n; i++) {
      const c: u32 = load<u16>(text + (<usize>i << 1));
      if (c > 127 || load<u8>(at + i) != c) break;
    }
    if (i == n) return true;
    return load<u16>(text + (<usize>i << 1)) > 127 && this.toString().startsWith(prefix); // A prefix is ASCII as a rule.
  }

  toString(): string {
    return String.UTF8.decodeUnsafe(this.ptr, this.length);
  }
}

/** One connection to decide. Its bytes are valid during the call only. */
@final @unmanaged
export class Call {
  app: Bytes = new Bytes();
  user: Bytes = new Bytes();
  hostname: Bytes = new Bytes();
  /** What this callout once gave for the connection. */
  record: Bytes = new Bytes();
  /** What it gave for the proxy: ptr is 0 where it did not fit. */
  context: Bytes = new Bytes();

  @inline get layer(): u16 { return load<u16>(BLOCK + abi.REQ_LAYER); }
  @inline get protocol(): u8 { return load<u8>(BLOCK + abi.REQ_PROTOCOL); }
  @inline get inbound(): bool { return load<u8>(BLOCK + abi.REQ_DIRECTION) == 1; }
  /** abi.CONDITION_FLAG_* */
  @inline get flags(): u32 { return load<u32>(BLOCK + abi.REQ_CONDITION_FLAGS); }
  @inline get connection(): u64 { return load<u64>(BLOCK + abi.REQ_CONNECTION); }
  @inline get filter(): u64 { return load<u64>(BLOCK + abi.REQ_FILTER); }
  /** Which of the following are known: abi.PRESENT_*. */
  @inline get present(): u32 { return load<u32>(BLOCK + abi.REQ_PRESENT); }
  @inline get pid(): u32 { return load<u32>(BLOCK + abi.REQ_PID); }
  @inline get uid(): u32 { return load<u32>(BLOCK + abi.REQ_UID); }
  /** 4 or 6; a v4-mapped address of an IPv6 socket is 6. */
  @inline get ipVersion(): u8 { return load<u8>(BLOCK + abi.REQ_IP_VERSION); }
  /** abi.STATE_*: who redirected the connection. */
  @inline get state(): u8 { return load<u8>(BLOCK + abi.REQ_REDIRECT_STATE); }
  @inline get localPort(): u16 { return load<u16>(BLOCK + abi.REQ_LOCAL_PORT); }
  @inline get remotePort(): u16 { return load<u16>(BLOCK + abi.REQ_REMOTE_PORT); }
  /** Where the 16 bytes of the address are, v4 as v4-mapped. */
  @inline get local(): usize { return BLOCK + abi.REQ_LOCAL; }
  @inline get remote(): usize { return BLOCK + abi.REQ_REMOTE; }
  /** The remote IPv4 address in host order, 0 for IPv6. */
  get remoteV4(): u32 {
    if (load<u64>(this.remote) != 0 || load<u32>(this.remote + 8) != 0xffff0000) return 0;
    return bswap<u32>(load<u32>(this.remote + 12));
  }
  /** Nanoseconds. */
  @inline get monotonic(): u64 { return load<u64>(BLOCK + abi.REQ_MONOTONIC); }
  @inline get interfaceIndex(): u32 { return load<u32>(BLOCK + abi.REQ_INTERFACE); }
  /** Reports whether this callout has redirected the connection. */
  get bySelf(): bool {
    return this.state == abi.STATE_REDIRECTED_BY_SELF || this.state == abi.STATE_PREVIOUSLY_REDIRECTED_BY_SELF;
  }

  /** Finds the items; false if one is outside the request. */
  read(): bool {
    return item(abi.REQ_APP, this.app) && item(abi.REQ_USER, this.user) && item(abi.REQ_RECORD, this.record) &&
      item(abi.REQ_CONTEXT, this.context) &&
      place(load<u16>(BLOCK + abi.REQ_HOSTNAME), load<u16>(BLOCK + abi.REQ_HOSTNAME + 2), this.hostname);
  }
}

@inline
function item(field: u32, out: Bytes): bool {
  return place(load<u32>(BLOCK + field), load<u32>(BLOCK + field + 4), out);
}

/** Offset 0 is nothing, which may have a length. */
@inline
function place(off: u32, length: u32, out: Bytes): bool {
  out.ptr = off ? BLOCK + off : 0;
  out.length = length;
  return off == 0 || length == 0 || (off >= abi.REQUEST_HEADER && <u64>off + length <= abi.RESPONSE_OFFSET);
}

/** An answer. One with no action is an error, never a permit. */
@final @unmanaged
export class Verdict {
  action: u32 = 0;
  flags: u32 = 0;
  port: u16 = 0;
  ipVersion: u8 = 0;
  pid: u32 = 0;
  addressLow: u64 = 0;
  addressHigh: u64 = 0;
  cookie: u64 = 0;
  record: usize = 0;
  recordLength: u32 = 0;
  context: usize = 0;
  contextLength: u32 = 0;

  get reason(): string { return reason; }
  set reason(text: string) { reason = text; }

  /** Adds bytes that come back when the proxy's own connection is decided. */
  withRecord(ptr: usize, length: u32): Verdict {
    this.record = ptr;
    this.recordLength = length;
    return this;
  }

  /** Adds bytes for the proxy. */
  withContext(ptr: usize, length: u32): Verdict {
    this.context = ptr;
    this.contextLength = length;
    return this;
  }

  /** Says why, for the trace. */
  withReason(reason: string): Verdict {
    this.reason = reason;
    return this;
  }

  /** Makes a number, not zero, the context of an established flow: it comes back in
   *  the event EVENT_FLOW_DELETED. */
  withCookie(cookie: u64): Verdict {
    this.cookie = cookie;
    return this;
  }

  /** Takes the right away from lighter sublayers to change the decision. */
  hard(): Verdict { return this.flag(abi.FLAG_HARD); }
  /** Keeps the context that the connection has. */
  keepContext(): Verdict { return this.flag(abi.FLAG_KEEP_CONTEXT); }
  /** Redirects without a redirect handle, as for a proxy on another host. */
  noRecord(): Verdict { return this.flag(abi.FLAG_NO_RECORD); }
  /** Says that equal inputs get the same answer. */
  cacheable(): Verdict { return this.flag(abi.FLAG_CACHEABLE); }

  private flag(flag: u32): Verdict {
    this.flags |= flag;
    return this;
  }
}

const verdict = new Verdict();
let reason: string = ""; // The verdict's: what is unmanaged cannot hold a reference.

/** The verdict, emptied. */
export function answer(action: u32): Verdict {
  verdict.action = action;
  verdict.flags = 0;
  verdict.port = 0;
  verdict.pid = 0;
  verdict.cookie = 0;
  verdict.recordLength = 0;
  verdict.contextLength = 0;
  reason = "";
  return verdict;
}

/** Lets the connection pass. */
export function permit(): Verdict { return answer(abi.ACTION_PERMIT); }

/** Refuses it; reason is what the user reads. */
export function block(reason: string): Verdict { return answer(abi.ACTION_BLOCK).withReason(reason); }

/** Continue: leaves the decision to the next filter. */
export function proceed(): Verdict { return answer(abi.ACTION_CONTINUE); }

/** Says that the callout failed. The connection is blocked. */
export function failed(reason: string): Verdict { return answer(abi.ACTION_GUEST_ERROR).withReason(reason); }

/** Sends it to a proxy: pid is the proxy's process, not zero for one on this host. */
export function redirect(a: u8, b: u8, c: u8, d: u8, port: u16, pid: u32): Verdict {
  const high = <u64>0xffff0000 | (<u64>a << 32) | (<u64>b << 40) | (<u64>c << 48) | (<u64>d << 56);
  const v = redirect6(0, high, port, pid);
  v.ipVersion = 4;
  return v;
}

/** The same with the bytes of an IPv6 address, as two little-endian numbers. */
export function redirect6(low: u64, high: u64, port: u16, pid: u32): Verdict {
  const v = answer(abi.ACTION_REDIRECT);
  v.ipVersion = 6;
  v.addressLow = low;
  v.addressHigh = high;
  v.port = port;
  v.pid = pid;
  return v;
}

/** Decides a connection. */
export type Decide = (call: Call) => Verdict;

/** Takes the configuration; returns why it refuses, or null. */
export type Configure = (config: Bytes, granted: u32) => string | null;

let decide: Decide = (_: Call): Verdict => failed("no policy is registered: call register");
let configure: Configure = (config: Bytes, _: u32): string | null =>
  config.length == 0 ? null : "this callout takes no configuration";
let wanted: u64 = 0;

/** Makes a function the module's callout. */
export function register(policy: Decide): void { decide = policy; }

/** Makes a function the reader of its configuration. */
export function onConfigure(reader: Configure): void { configure = reader; }

/** Asks for capabilities: those it cannot do without, and those it can. */
export function ask(required: u32, optional: u32): void { wanted = <u64>required | (<u64>optional << 32); }

export function capabilities(): u64 { return wanted; }

const call = new Call();

/** Answers the request in the block. */
export function classify(): u64 {
  return write(call.read() ? decide(call) : failed("a request item is outside the request"));
}

const RESPONSE = BLOCK + abi.RESPONSE_OFFSET;

/** Copies an item to the response and says where it is. */
@inline
function append(at: u32, ptr: usize, length: u32, off: u32, len: u32): u32 {
  if (length) memory.copy(BLOCK + at, ptr, length);
  store<u32>(RESPONSE + off, at);
  store<u32>(RESPONSE + len, length);
  return at + length;
}

/** Writes a text of at most room bytes, its last character whole. */
function appendText(at: u32, text: string, room: u32): u32 {
  let n: u32 = 0;
  let ptr: usize = 0;
  if (text.length) {
    const b = String.UTF8.encode(text);
    n = <u32>b.byteLength;
    ptr = changetype<usize>(b);
    if (n > room) {
      for (n = room; n > 0 && (load<u8>(ptr + n) & 0xc0) == 0x80; n--) {}
    }
  }
  return append(at, ptr, n, abi.RESP_REASON, abi.RESP_REASON + 4);
}

function write(v: Verdict): u64 {
  if (v.action == abi.ACTION_INVALID) v = failed("the callout gave no verdict");
  else if (v.recordLength > abi.MAX_RECORD) v = failed("the record is over the limit of 3456 bytes");
  else if (v.contextLength > abi.MAX_CONTEXT) v = failed("the context is over the limit of 4096 bytes");
  const redirects = v.action == abi.ACTION_REDIRECT;
  let packed: u64 = <u64>v.action | (<u64>v.flags << abi.PACK_FLAGS);
  if (!redirects && v.reason.length == 0 && v.cookie == 0) return packed;
  store<u32>(RESPONSE + abi.RESP_ACTION, v.action);
  store<u32>(RESPONSE + abi.RESP_FLAGS, v.flags);
  store<u64>(RESPONSE + abi.RESP_COOKIE, v.cookie);
  let at: u32 = abi.RESPONSE_OFFSET + abi.RESPONSE_HEADER;
  if (redirects) {
    store<u16>(RESPONSE + abi.RESP_PORT, v.port);
    store<u8>(RESPONSE + abi.RESP_IP_VERSION, v.ipVersion);
    store<u32>(RESPONSE + abi.RESP_TARGET_PID, v.pid);
    store<u64>(RESPONSE + abi.RESP_ADDRESS, v.addressLow);
    store<u64>(RESPONSE + abi.RESP_ADDRESS + 8, v.addressHigh);
    at = append(at, v.record, v.recordLength, abi.RESP_RECORD_OFF, abi.RESP_RECORD_LEN);
    at = append(at, v.context, v.contextLength, abi.RESP_CONTEXT_OFF, abi.RESP_CONTEXT_LEN);
    packed |= (<u64>v.port << abi.PACK_PORT) | (<u64>v.recordLength << abi.PACK_RECORD);
  }
  appendText(at, v.reason, min<u32>(abi.MAX_REASON, abi.BLOCK_SIZE - at));
  return packed;
}

const MAX_CONFIG: u32 = 65536;
const config = new Bytes();
let pending: usize = 0;

/** Takes one chunk of the configuration; the last one ends it. */
export function init(arg: u32): i32 {
  const n = arg & ~abi.INIT_MORE;
  const granted = load<u32>(RESPONSE + abi.INIT_GRANTED);
  let why: string | null = "the configuration is over the limit";
  if (n <= abi.INIT_CHUNK && n <= MAX_CONFIG - config.length) {
    if (!pending) pending = heap.alloc(MAX_CONFIG);
    memory.copy(pending + config.length, BLOCK, n);
    config.ptr = pending;
    config.length += n;
    if (arg & abi.INIT_MORE) return 0;
    why = configure(config, granted);
  }
  return why === null ? 0 : refuse(why);
}

function refuse(why: string): i32 {
  memory.fill(RESPONSE, 0, abi.RESPONSE_HEADER);
  write(failed(why));
  return -1;
}

/** What a policy hears of whose entry file has
 *
 *      export * from "callout/assembly/notify";
 */
@final
export class Event {
  /** abi.EVENT_* */
  kind: u32 = 0;
  layer: u16 = 0;
  /** Of an event about a filter, else for which the callout decided. */
  filter: u64 = 0;
  /** Of EVENT_FLOW_ESTABLISHED and EVENT_REDIRECT_DONE, as of the call. */
  connection: u64 = 0;
  /** Of a flow. */
  cookie: u64 = 0;
}

/** Hears of an event; returns why it refuses a filter that is added, or null. */
export type Hear = (event: Event) => string | null;

let hear: Hear = (_: Event): string | null => null;
const event = new Event();

/** Makes a function hear of filters, flows and redirects. */
export function onNotify(listener: Hear): void { hear = listener; }

/** Tells the policy of the event in the block. */
export function notify(kind: u32): i32 {
  event.kind = kind;
  event.layer = load<u16>(BLOCK + abi.REQ_LAYER);
  event.filter = load<u64>(BLOCK + abi.REQ_FILTER);
  event.connection = load<u64>(BLOCK + abi.REQ_CONNECTION);
  event.cookie = load<u64>(RESPONSE + abi.RESP_COOKIE);
  const why = hear(event);
  return why === null ? 0 : refuse(why);
}
