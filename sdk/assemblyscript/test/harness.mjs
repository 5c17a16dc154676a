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
  /** Loads a file, or takes a module, and gives it its configuration. */
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

  /** Decides a call. */
  decide({ protocol = 6, ipVersion = 4, remote, remotePort = 0, app = "", state = 0, pid = 0 }) {
    new Uint8Array(this.exports.memory.buffer, this.block, 16384).fill(0);
    const v = this.view(0, 8192);
    const path = new TextEncoder().encode(app);
    v.setUint32(0, 128 + path.length, true);
    v.setUint32(8, 0x3ff, true);
    v.setUint32(32, pid, true);
    v.setUint8(40, ipVersion);
    v.setUint8(41, protocol);
    v.setUint16(44, remotePort, true);
    v.setUint8(46, state);
    new Uint8Array(this.exports.memory.buffer, this.block + 64, 16).set(bytes(remote));
    v.setUint32(80, path.length ? 128 : 0, true);
    v.setUint32(84, path.length, true);
    new Uint8Array(this.exports.memory.buffer, this.block + 128, path.length).set(path);
    return this.answer(BigInt.asUintN(64, this.exports.callout_classify()));
  }

  answer(packed) {
    const r = this.view(8192, 8192);
    const part = (off, length) => new Uint8Array(this.exports.memory.buffer.slice(this.block + r.getUint32(off, true), this.block + r.getUint32(off, true) + r.getUint32(length, true)));
    return {
      action: actions[Number(packed & 0xffffn)],
      port: Number((packed >> 16n) & 0xffffn),
      pid: r.getUint32(12, true),
      record: part(40, 32),
      context: part(44, 36),
      reason: new TextDecoder().decode(part(48, 52)),
    };
  }
}
