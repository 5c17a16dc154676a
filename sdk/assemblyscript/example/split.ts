// split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
// networks on a list.
//
// Configuration: "proxy PORT PID" on the first line, then a network such as
// 198.51.100.0/24 on each line.

import { Bytes, Call, Verdict, onConfigure, permit, redirect, register } from "../assembly";
export * from "../assembly/exports";

const MAX_NETWORKS: u32 = 256;
const networks: usize = memory.data(2048); // network and mask, 4 bytes each
const record: usize = memory.data(48, 8);
let count: u32 = 0;
let proxyPort: u16 = 0;
let proxyPID: u32 = 0;

/** Reads the numbers of a text, after anything that is no digit. */
@final
class Numbers {
  constructor(public at: usize, public end: usize) {}

  /** Reports whether there is one more. */
  more(): bool {
    while (this.at < this.end && (load<u8>(this.at) < 48 || load<u8>(this.at) > 57)) this.at++;
    return this.at < this.end;
  }

  /** The next one, or -1 if there is none up to max. */
  next(max: i64): i64 {
    if (!this.more()) return -1;
    let n: i64 = 0;
    for (; this.at < this.end && load<u8>(this.at) >= 48 && load<u8>(this.at) <= 57; this.at++) {
      n = n * 10 + (load<u8>(this.at) - 48);
      if (n > max) return -1;
    }
    return n;
  }
}

onConfigure((config: Bytes, _: u32): string | null => {
  const text = new Numbers(config.ptr, config.ptr + config.length);
  const port = text.next(65535), pid = text.next(0x7fffffff);
  if (port < 0 || pid <= 0) return "the first line is not: proxy PORT PID";
  proxyPort = <u16>port;
  proxyPID = <u32>pid;
  for (count = 0; text.more(); count++) {
    if (count == MAX_NETWORKS) return "more than 256 networks";
    let net: i64 = 0;
    for (let i = 0; i < 4; i++) {
      const part = text.next(255);
      if (part < 0) return "a network is not like 198.51.100.0/24";
      net = net << 8 | part;
    }
    const bits = text.next(32);
    if (bits < 0) return "a network is not like 198.51.100.0/24";
    const mask: u32 = bits ? <u32>0xffffffff << <u32>(32 - bits) : 0;
    store<u32>(networks + 8 * count, <u32>net & mask);
    store<u32>(networks + 8 * count + 4, mask);
  }
  return null;
});

function listed(address: u32): bool {
  const end = networks + 8 * count;
  for (let at = networks; at < end; at += 8) {
    if ((address & load<u32>(at + 4)) == load<u32>(at)) return true;
  }
  return false;
}

/** What is to be known when the proxy's own connection is decided. */
function remember(call: Call): void {
  store<u32>(record, 0x314c5053); // SPL1
  memory.copy(record + 4, call.remote, 16);
  store<u16>(record + 20, call.remotePort);
  store<u8>(record + 22, call.protocol);
  store<u8>(record + 23, call.ipVersion);
  store<u32>(record + 24, call.pid);
  store<u64>(record + 40, call.connection);
}

register((call: Call): Verdict => {
  if (call.bySelf) return permit().withReason("the proxy's own connection");
  const to = call.remoteV4; // ::ffff:a.b.c.d of a dual-stack socket is IPv4 too.
  if (call.protocol != 6 || !to || call.remotePort != 443 || !call.app.startsWith("/usr/bin/") || listed(to)) return permit();
  remember(call);
  return redirect(127, 0, 0, 1, proxyPort, proxyPID).withRecord(record, 48);
});
