// The guest of the TCK: answers by the destination port. See ../mirror.md.

let granted = 0, config = "";

function configure(text, caps) {
  if (text.startsWith("!")) return "refused";
  granted = caps;
  config = text;
}

/** Numbers and bytes, one after the other. */
class Bytes {
  at = 0;
  out = new Uint8Array(8192);
  view = new DataView(this.out.buffer);
  u8(...list) { for (const n of list) this.out[this.at++] = n; return this; }
  u16(...list) { for (const n of list) { this.view.setUint16(this.at, n, true); this.at += 2; } return this; }
  u32(...list) { for (const n of list) { this.view.setUint32(this.at, n, true); this.at += 4; } return this; }
  u64(...list) { for (const n of list) { this.view.setBigUint64(this.at, n, true); this.at += 8; } return this; }
  bytes(b) { this.out.set(b, this.at); this.at += b.length; return this; }
  item(b, n = b.length) { return this.u32(n).bytes(b); }
  text(s) { return this.item(utf8(s)); }
  done() { return this.out.subarray(0, this.at); }
}

/** UTF-8, which the engine has for answers only. */
function utf8(s) {
  return Uint8Array.from(unescape(encodeURIComponent(s)), c => c.charCodeAt(0));
}

function mirror(c) {
  return new Bytes().u16(c.layer).u8(c.protocol, c.inbound).u32(c.flags).u64(c.connection, c.filter).u32(c.present, c.pid, c.uid)
    .u8(c.ipVersion, c.state).u16(c.localPort, c.remotePort).bytes(c.localBytes).bytes(c.remoteBytes).u64(c.monotonic)
    .u32(c.interfaceIndex).text(c.app).text(c.user).text(c.hostname).item(c.record).item(c.context, c.contextSize).done();
}

const to = () => redirect("127.0.0.1", 8080, 77);

const answers = {
  1: () => permit(),
  2: () => block("no such place"),
  3: () => proceed(),
  4: c => to().withRecord(mirror(c)).withContext("context"),
  5: () => permit().hard(),
  6: () => redirect("2001:db8::1", 8080, 0).noRecord(),
  7: () => to().withRecord("again").keepContext(),
  8: () => undefined,
  9: () => to().withRecord(new Uint8Array(3457)),
  10: () => to().withContext(new Uint8Array(4097)),
  11: () => to().withRecord("r".repeat(3456)).withContext("c".repeat(4096)),
  12: () => permit().cacheable().withReason("because"),
  13: () => block("a" + "é".repeat(999)),
  14: () => failed("it broke"),
  15: () => permit().withCookie(0x8122334455667788n),
};

function notify(e) {
  if (e.kind == 1 && e.filter == 0x800000000000000dn) throw "no such filter";
  if (e.kind == 4 && (e.cookie != 0x8122334455667788n || e.layer != 0x44)) throw "no such flow";
  if ((e.kind == 3 || e.kind == 5) && e.connection != 0x9000000000000009n) throw "no such connection";
}

function configured() {
  const b = utf8(config), ends = new Uint8Array(32);
  ends.set(b.subarray(0, 16));
  ends.set(b.slice(-16).reverse(), 16);
  return to().withRecord(new Bytes().u32(granted, b.length).bytes(ends).done());
}

function classify(call) {
  const answer = answers[call.remotePort];
  return answer ? answer(call) : configured();
}
