// node --test

import assert from "node:assert/strict";
import { test } from "node:test";
import { Policy } from "./harness.mjs";

const module = new URL("../example/split.wasm", import.meta.url);
const config = "proxy 8443 77\n198.51.100.0/24\n203.0.113.0/25\n";
const curl = { remote: "93.184.216.34", remotePort: 443, app: "/usr/bin/curl" };

for (const [name, call, action] of [
  ["a program of the system is redirected", {}, "redirect"],
  ["a network on the list is not", { remote: "198.51.100.7" }, "permit"],
  ["nor another program", { app: "/opt/browser" }, "permit"],
  ["nor one whose name only begins so", { app: "/usr/binary" }, "permit"],
  ["nor another port", { remotePort: 80 }, "permit"],
  ["nor UDP", { protocol: 17 }, "permit"],
  ["nor IPv6", { ipVersion: 6, remote: Array(16).fill(0x20) }, "permit"],
  ["but a dual-stack socket is", { ipVersion: 6 }, "redirect"],
  ["nor the proxy's own connection", { state: 1 }, "permit"],
]) {
  test(name, () => {
    const answer = new Policy(module, config).decide({ ...curl, ...call });
    assert.equal(answer.action, action);
    if (action === "redirect") {
      assert.equal(answer.port, 8443);
      assert.equal(answer.pid, 77);
      assert.deepEqual([...answer.record.slice(16, 20)], [93, 184, 216, 34]);
    }
  });
}

for (const wrong of ["", "proxy 8443 0", "proxy 65536 77", "proxy 8443 77\n198.51.100/24", "proxy 8443 77\n198.51.100.256/24", "proxy 8443 77\n198.51.100.0/33"]) {
  test(`a wrong configuration is refused: ${JSON.stringify(wrong)}`, () => {
    assert.throws(() => new Policy(module, wrong), /not/);
  });
}
