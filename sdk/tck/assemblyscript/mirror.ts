// The guest of the TCK: answers by the destination port. See ../mirror.md.

import { Bytes, Call, Event, Verdict, answer, ask, block, failed, onConfigure, onNotify, permit, proceed, redirect, redirect6, register } from "../../assemblyscript/assembly";
import * as abi from "../../assemblyscript/assembly/abi";
export * from "../../assemblyscript/assembly/exports";
export * from "../../assemblyscript/assembly/notify";

const out: usize = memory.data(abi.MAX_RECORD + 8);
const big: usize = memory.data(abi.MAX_CONTEXT + 8);
const ends: usize = memory.data(32);
const context: usize = memory.data<u8>([99, 111, 110, 116, 101, 120, 116]);
const again: usize = memory.data<u8>([97, 103, 97, 105, 110]);
let length: u32 = 0;
let granted: u32 = 0;
let configLength: u32 = 0;

ask(0, 0xff);

const COOKIE: u64 = 0x8122334455667788;

onNotify((e: Event): string | null => {
  if (e.kind == abi.EVENT_FILTER_ADDED && e.filter == 0x800000000000000d) return "no such filter";
  if (e.kind == abi.EVENT_FLOW_DELETED && (e.cookie != COOKIE || e.layer != 0x44)) return "no such flow";
  if ((e.kind == abi.EVENT_FLOW_ESTABLISHED || e.kind == abi.EVENT_REDIRECT_DONE) && e.connection != 0x9000000000000009) return "no such connection";
  return null;
});

onConfigure((config: Bytes, caps: u32): string | null => {
  if (config.length > 0 && load<u8>(config.ptr) == 33) return "refused";
  granted = caps;
  configLength = config.length;
  for (let i: u32 = 0; i < 16 && i < config.length; i++) {
    store<u8>(ends + i, load<u8>(config.ptr + i));
    store<u8>(ends + 16 + i, load<u8>(config.ptr + config.length - 1 - i));
  }
  return null;
});

function put<T>(v: T): void {
  store<T>(out + length, v);
  length += sizeof<T>();
}

function copy(ptr: usize, n: u32): void {
  memory.copy(out + length, ptr, n);
  length += n;
}

function item(b: Bytes): void {
  put<u32>(b.length);
  if (b.ptr) copy(b.ptr, b.length);
}

function mirror(c: Call): Verdict {
  length = 0;
  put<u16>(c.layer);
  put<u8>(c.protocol);
  put<u8>(<u8>c.inbound);
  put<u32>(c.flags);
  put<u64>(c.connection);
  put<u64>(c.filter);
  put<u32>(c.present);
  put<u32>(c.pid);
  put<u32>(c.uid);
  put<u8>(c.ipVersion);
  put<u8>(c.state);
  put<u16>(c.localPort);
  put<u16>(c.remotePort);
  copy(c.local, 16);
  copy(c.remote, 16);
  put<u64>(c.monotonic);
  put<u32>(c.interfaceIndex);
  item(c.app);
  item(c.user);
  item(c.hostname);
  item(c.record);
  item(c.context);
  return to().withRecord(out, length).withContext(context, 7);
}

function to(): Verdict { return redirect(127, 0, 0, 1, 8080, 77); }

register((c: Call): Verdict => {
  switch (c.remotePort) {
    case 1: return permit();
    case 2: return block("no such place");
    case 3: return proceed();
    case 4: return mirror(c);
    case 5: return permit().hard();
    case 6: return redirect6(0xb80d0120, 0x0100000000000000, 8080, 0).noRecord();
    case 7: return to().withRecord(again, 5).keepContext();
    case 8: return answer(abi.ACTION_INVALID);
    case 9: return to().withRecord(out, abi.MAX_RECORD + 1);
    case 10: return to().withContext(big, abi.MAX_CONTEXT + 1);
    case 11:
      memory.fill(out, 114, abi.MAX_RECORD);
      memory.fill(big, 99, abi.MAX_CONTEXT);
      return to().withRecord(out, abi.MAX_RECORD).withContext(big, abi.MAX_CONTEXT);
    case 12: return permit().cacheable().withReason("because");
    case 13: return block("a" + "é".repeat(999));
    case 14: return failed("it broke");
    case 15: return permit().withCookie(COOKIE);
  }
  length = 0;
  put<u32>(granted);
  put<u32>(configLength);
  copy(ends, 32);
  return to().withRecord(out, length);
});
