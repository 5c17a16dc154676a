// The decision for goja: networks, as address and mask in turn, are set by the host.
const record = new ArrayBuffer(48);
const view = new DataView(record);
[0x53, 0x50, 0x4c, 0x31].forEach((c, i) => view.setUint8(i, c)); // SPL1

function listed(address) {
  for (let i = 0; i < networks.length; i += 2) {
    if ((address & networks[i + 1]) >>> 0 === networks[i]) return true;
  }
  return false;
}

// Returns the record, or null for a permit. An address is 16 bytes.
function decide(protocol, port, remote, app, pid, connection) {
  const address = new DataView(remote);
  if (protocol !== 6 || port !== 443 || !app.startsWith("/usr/bin/") || listed(address.getUint32(12))) return null;
  for (let i = 0; i < 16; i += 4) view.setUint32(4 + i, address.getUint32(i));
  view.setUint16(20, port, true);
  view.setUint8(22, protocol);
  view.setUint8(23, 4);
  view.setUint32(24, pid, true);
  view.setUint32(40, connection, true);
  view.setUint32(44, connection / 4294967296, true);
  return record;
}
