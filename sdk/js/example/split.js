// split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
// networks on a list.
//
// Configuration: "proxy PORT PID" on the first line, then a network such as
// 198.51.100.0/24 on each line.

let proxyPort, proxyPID, networks;

/** Returns why the configuration is refused, or nothing. */
function configure(text) {
  const numbers = (text.match(/[0-9]+/g) ?? []).map(Number);
  const within = (n, max) => n !== undefined && n <= max;
  [proxyPort, proxyPID] = numbers;
  if (!within(proxyPort, 65535) || !within(proxyPID, 0x7fffffff) || !proxyPID) return "the first line is not: proxy PORT PID";
  networks = [];
  for (let at = 2; at < numbers.length; at += 5) {
    const [a, b, c, d, bits] = numbers.slice(at, at + 5);
    if (![a, b, c, d].every(part => within(part, 255)) || !within(bits, 32)) return "a network is not like 198.51.100.0/24";
    if (networks.length == 256) return "more than 256 networks";
    const mask = bits ? ~0 << 32 - bits : 0; // Numbers of 32 bits are signed here.
    networks.push({net: (a << 24 | b << 16 | c << 8 | d) & mask, mask});
  }
}

/** What is to be known when the proxy's own connection is decided. */
function remember(call) {
  const record = new Uint8Array(48), view = new DataView(record.buffer);
  record.set([0x53, 0x50, 0x4c, 0x31]); // SPL1
  record.set(call.remoteBytes, 4);
  view.setUint16(20, call.remotePort, true);
  record[22] = call.protocol;
  record[23] = call.ipVersion;
  view.setUint32(24, call.pid, true);
  view.setBigUint64(40, call.connection, true);
  return record;
}

function classify(call) {
  if (call.bySelf) return permit().withReason("the proxy's own connection");
  const to = call.remoteV4; // ::ffff:a.b.c.d of a dual-stack socket is IPv4 too.
  if (call.protocol != 6 || !to || call.remotePort != 443 || !call.app.startsWith("/usr/bin/")) return permit();
  if (networks.some(({net, mask}) => (to & mask) == net)) return permit();
  return redirect("127.0.0.1", proxyPort, proxyPID).withRecord(remember(call));
}
