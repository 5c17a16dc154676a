// Reads a configuration, which is JSON, into a tree. It is for callout_init, which
// may allocate; a decision does not need it.

import { Bytes } from "./index";

export enum Kind { NULL, BOOLEAN, NUMBER, TEXT, LIST, OBJECT }

/** A value. Only the members of its kind mean something. */
@final
export class Value {
  kind: Kind = Kind.NULL;
  /** Of a number that is whole; others are no number here. */
  number: i64 = 0;
  whole: bool = false;
  truth: bool = false;
  text: string = "";
  /** Of a list; of an object what stands at keys. */
  items: Value[] = [];
  keys: string[] = [];

  /** The member of an object. */
  get(key: string): Value | null {
    const i = this.keys.indexOf(key);
    return i < 0 ? null : this.items[i];
  }

  /** The first key of an object that is not known, or "". */
  unknown(known: string[]): string {
    for (let i = 0; i < this.keys.length; i++) {
      if (!known.includes(this.keys[i])) return this.keys[i];
    }
    return "";
  }

  /** Reports whether it is a whole number from low to high. */
  within(low: i64, high: i64): bool {
    return this.kind == Kind.NUMBER && this.whole && this.number >= low && this.number <= high;
  }
}

const MAX_DEPTH = 32;

/** Reads a whole document; null if it is none. */
export function parse(document: Bytes): Value | null {
  const r = new Reader(document.ptr, document.ptr + document.length);
  const v = r.value(MAX_DEPTH);
  return r.next() == 0 && r.at == r.end && !r.failed ? v : null;
}

@final
class Reader {
  failed: bool = false;

  constructor(public at: usize, public end: usize) {}

  /** The next byte that is no space; 0 at the end. */
  next(): u8 {
    while (this.at < this.end) {
      const c = load<u8>(this.at);
      if (c != 32 && c != 9 && c != 10 && c != 13) return c;
      this.at++;
    }
    return 0;
  }

  /** Reads a byte, if it is the next one. */
  takes(c: u8): bool {
    if (this.next() != c || this.at == this.end) return false;
    this.at++;
    return true;
  }

  fails(): Value {
    this.failed = true;
    this.at = this.end;
    return new Value();
  }

  value(depth: i32): Value {
    const c = this.next();
    if (c == 34) {
      const v = new Value();
      v.kind = Kind.TEXT;
      v.text = this.string();
      return v;
    }
    if (depth > 0 && c == 123) return this.list(Kind.OBJECT, 125, depth);
    if (depth > 0 && c == 91) return this.list(Kind.LIST, 93, depth);
    return c == 45 || digit(c) ? this.number() : this.word();
  }

  /** A list, or an object, whose items have keys. */
  list(kind: Kind, close: u8, depth: i32): Value {
    const v = new Value();
    v.kind = kind;
    this.at++;
    if (this.takes(close)) return v;
    do {
      if (kind == Kind.OBJECT) {
        if (this.next() != 34) return this.fails();
        v.keys.push(this.string());
        if (!this.takes(58)) return this.fails();
      }
      v.items.push(this.value(depth - 1));
    } while (this.takes(44));
    return this.takes(close) ? v : this.fails();
  }

  string(): string {
    let out = "";
    let from = ++this.at;
    for (; this.at < this.end; this.at++) {
      const c = load<u8>(this.at);
      if (c == 34) return out + String.UTF8.decodeUnsafe(from, this.at++ - from);
      if (c < 32) break;
      if (c != 92) continue;
      out += String.UTF8.decodeUnsafe(from, this.at - from) + this.escape();
      from = this.at + 1;
    }
    this.fails();
    return "";
  }

  /** What an escape stands for; ends at its last byte. */
  escape(): string {
    if (++this.at >= this.end) return "";
    const c = load<u8>(this.at);
    if (c == 34 || c == 47 || c == 92) return String.fromCharCode(c);
    if (c == 110) return "\n";
    if (c == 116) return "\t";
    if (c == 114) return "\r";
    if (c == 98) return "\b";
    if (c == 102) return "\f";
    let unit: i32 = 0;
    if (c != 117 || this.end - this.at < 5) this.failed = true;
    else {
      for (let i = 0; i < 4; i++) unit = unit << 4 | this.hex(load<u8>(++this.at));
    }
    return String.fromCharCode(unit); // One half of a pair comes after the other.
  }

  hex(c: u8): i32 {
    if (digit(c)) return c - 48;
    const low = c | 32;
    if (low >= 97 && low <= 102) return low - 87;
    this.failed = true;
    return 0;
  }

  digits(): bool {
    const from = this.at;
    while (this.at < this.end && digit(load<u8>(this.at))) this.at++;
    return this.at > from;
  }

  number(): Value {
    const v = new Value();
    v.kind = Kind.NUMBER;
    const from = this.at;
    if (load<u8>(this.at) == 45) this.at++;
    const first = this.at;
    if (!this.digits() || (load<u8>(first) == 48 && this.at > first + 1)) return this.fails();
    v.whole = this.at - first <= 18;
    if (v.whole) v.number = I64.parseInt(String.UTF8.decodeUnsafe(from, this.at - from));
    if (this.at < this.end && load<u8>(this.at) == 46) {
      v.whole = false;
      this.at++;
      if (!this.digits()) return this.fails();
    }
    if (this.at < this.end && (load<u8>(this.at) | 32) == 101) {
      v.whole = false;
      this.at++;
      if (this.at < this.end && (load<u8>(this.at) == 43 || load<u8>(this.at) == 45)) this.at++;
      if (!this.digits()) return this.fails();
    }
    return v;
  }

  word(): Value {
    const v = new Value();
    if (this.says("null")) return v;
    v.kind = Kind.BOOLEAN;
    if (this.says("false")) return v;
    v.truth = true;
    return this.says("true") ? v : this.fails();
  }

  says(word: string): bool {
    if (this.end - this.at < <usize>word.length) return false;
    for (let i = 0; i < word.length; i++) {
      if (load<u8>(this.at + i) != <u8>word.charCodeAt(i)) return false;
    }
    this.at += word.length;
    return true;
  }
}

@inline
function digit(c: u8): bool { return c >= 48 && c <= 57; }
