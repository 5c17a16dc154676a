// What the plugins in AssemblyScript share: reading parts of a configuration, and
// saying what is wrong with them and where.

import { Kind, Value } from "../sdk/assemblyscript/assembly/json";

/** Why a configuration is refused: the first mistake, or null. */
export let refusal: string | null = null;

export function refuse(why: string): void {
  if (refusal === null) refusal = why;
}

/** Refuses what is no object or has a key that is not known. */
export function keys(v: Value | null, at: string, known: string[]): bool {
  if (v === null || v.kind != Kind.OBJECT) {
    refuse(`${at}: expected keys and values`);
    return false;
  }
  const other = v.unknown(known);
  if (other.length) refuse(`${at} has no key "${other}"`);
  return other.length == 0;
}

/** The items of a list; none if it is none. */
export function list(v: Value | null, at: string): Value[] {
  if (v !== null && v.kind == Kind.LIST) return v.items;
  refuse(`${at}: expected a list`);
  return [];
}

export function text(v: Value | null, at: string): string {
  if (v !== null && v.kind == Kind.TEXT && v.text.length) return v.text;
  refuse(`${at}: expected a text`);
  return "";
}

export function number(v: Value | null, at: string, low: i64, high: i64, like: string): i64 {
  if (v !== null && v.within(low, high)) return v.number;
  refuse(`${at}: expected ${like}`);
  return 0;
}

/** A decimal number of a text, or -1 if it is none up to max. */
export function decimal(s: string, max: i64): i64 {
  if (s.length == 0 || s.length > 10) return -1;
  let n: i64 = 0;
  for (let i = 0; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (c < 48 || c > 57) return -1;
    n = n * 10 + (c - 48);
  }
  return n <= max ? n : -1;
}

/** A proxy: an IPv4 address, a port and a process. */
@final
export class Proxy {
  address: u32 = 0;
  port: u16 = 0;
  pid: u32 = 0;

  /** Reads ADDR:PORT and the process. */
  read(proxy: Value | null, pid: Value | null, at: string): void {
    const s = text(proxy, at + "proxy");
    const colon = s.lastIndexOf(":"), parts = s.slice(0, max(colon, 0)).split(".");
    let port = decimal(s.slice(colon + 1), 65535), address: i64 = 0;
    for (let i = 0; i < parts.length; i++) {
      const part = decimal(parts[i], 255);
      if (part < 0 || parts.length != 4) port = -1;
      address = address << 8 | part;
    }
    if (port <= 0) refuse(`${at}proxy: "${s}" is no IPv4 address and port`);
    this.address = <u32>address;
    this.port = <u16>port;
    this.pid = <u32>number(pid, at + "pid", 1, 0x7fffffff, "the proxy's process, ${pid}");
  }
}
