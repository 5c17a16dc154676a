// Runs a policy in Node.js: a call is an object, an answer is one.

import { readFileSync } from "node:fs";

const actions = { 1: "permit", 2: "block", 3: "redirect", 4: "continue", 0xffff: "error" };

/** The bytes of an address, IPv4 as v4-mapped. */
function bytes(address) {
  const out = new Uint8Array(16);
  if (Array.isArray(address) && address.length === 16) out.set(address);
  else if (address) out.set([0xff, 0xff, ...address.split(".").map(Number)], 10);
  return out;
}

export class Policy {
  /**
   * Loads a file, or takes a module, and gives it its configuration. imports stands for the
   * host's functions: {callout: {cidr_match: () => 0}}.
   */
  constructor(from, config = "", imports = {}) {
    this.module = from instanceof WebAssembly.Module ? from : new WebAssembly.Module(readFileSync(from));
    this.exports = new WebAssembly.Instance(this.module, imports).exports;
    this.block = this.exports.callout_abi_v1() >>> 0;
    this.configure(config);
  }

  view(at, length) {
    return new DataView(this.exports.memory.buffer, this.block + at, length);
  }

  configure(config) {
    new Uint8Array(this.exports.memory.buffer, this.block, 16384).fill(0);
    const n = new TextEncoder().encodeInto(config, new Uint8Array(this.exports.memory.buffer, this.block, 8192)).written;
    if (this.exports.callout_init(n) !== 0) throw new Error(this.answer(0xffffn).reason);
  }

  /** Decides a call: what is not given is zero, or empty. */
  decide({ layer = 66, protocol = 6, inbound = false, ipVersion = 4, local, localPort = 0, remote, remotePort = 0, app = "", user = "", hostname = "", state = 0, pid = 0, uid = 0 }) {
    new Uint8Array(this.exports.memory.buffer, this.block, 16384).fill(0);
    const v = this.view(0, 8192);
    v.setUint16(6, layer, true);
    v.setUint32(8, 0x3ff, true);
    v.setUint32(32, pid, true);
    v.setUint32(36, uid, true);
    v.setUint8(40, ipVersion);
    v.setUint8(41, protocol);
    v.setUint16(42, localPort, true);
    v.setUint16(44, remotePort, true);
    v.setUint8(46, state);
    v.setUint8(47, inbound ? 1 : 0);
    this.put(48, bytes(local));
    this.put(64, bytes(remote));
    let end = 128;
    const item = (text, write) => {
      const b = new TextEncoder().encode(text);
      this.put(end, b);
      write(b.length ? end : 0, b.length);
      end += (b.length + 7) & ~7; // Items begin at multiples of 8.
    };
    const words = (at) => (offset, length) => [v.setUint32(at, offset, true), v.setUint32(at + 4, length, true)];
    item(app, words(80));
    item(user, words(88));
    item(hostname, (offset, length) => [v.setUint16(124, offset, true), v.setUint16(126, length, true)]);
    v.setUint32(0, end, true);
    return this.answer(BigInt.asUintN(64, this.exports.callout_classify()));
  }

  put(at, b) {
    new Uint8Array(this.exports.memory.buffer, this.block + at, b.length).set(b);
  }

  answer(packed) {
    const r = this.view(8192, 8192);
    const bytesOf = (at, length) => new Uint8Array(this.exports.memory.buffer.slice(this.block + 8192 + at, this.block + 8192 + at + length));
    const part = (off, length) => new Uint8Array(this.exports.memory.buffer.slice(this.block + r.getUint32(off, true), this.block + r.getUint32(off, true) + r.getUint32(length, true)));
    return {
      action: actions[Number(packed & 0xffffn)],
      port: Number((packed >> 16n) & 0xffffn),
      pid: r.getUint32(12, true),
      address: r.getUint8(10) === 4 ? [...bytesOf(28, 4)].join(".") : bytesOf(16, 16),
      record: part(40, 32),
      context: part(44, 36),
      reason: new TextDecoder().decode(part(48, 52)),
    };
  }
}
