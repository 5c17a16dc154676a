// node --test: the reader of configurations takes what is right, and refuses, with
// a reason and without a trap, whatever is not.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Policy } from "../../sdk/assemblyscript/test/harness.mjs";

const module = new URL("tenant-egress.wasm", import.meta.url);
const imports = { callout: { cidr_match: () => 0 } };
const good = JSON.stringify({
  direct: 0,
  otherwise: 'a"\\\u00e9\n',
  tenants: [{ name: 'a"\\\u00e9\n', users: [7, "1000-1999"], proxy: "127.0.0.1:9", pid: 3 }],
});

test("a configuration with escapes", () => {
  new Policy(module, good, imports);
  new Policy(module, good.replace("\u00e9", "\\u00e9"), imports);
});

for (const wrong of ["", "{", "[1,]", '{"tenants":[01]}', '{"tenants":[1.]}', '{"tenants":[]}x', '{"tenants":["\\x"]}', '{"tenants":["\\u12"]}', "[".repeat(99)]) {
  test(`no JSON: ${wrong.slice(0, 20)}`, () => assert.throws(() => new Policy(module, wrong, imports), /^Error: the configuration is no JSON$/));
}

const strict = JSON.stringify({ ...JSON.parse(good), otherwise: "block" });

for (const [name, call, action] of [
  ["a user of a tenant goes to its proxy", { uid: 7 }, "redirect"],
  ["so does one in its range", { uid: 1999 }, "redirect"],
  ["another's goes where it was to go", { uid: 8 }, "continue"],
  ["where no redirect is possible it is blocked", { uid: 7, layer: 48 }, "block"],
]) {
  test(name, () => {
    const answer = new Policy(module, strict, imports).decide({ remote: "192.0.2.7", remotePort: 443, ...call });
    assert.equal(answer.action, action);
    if (action === "redirect") assert.deepEqual([answer.address, answer.port, answer.pid], ["127.0.0.1", 9, 3]);
  });
}

test("a configuration that is cut or changed somewhere is read or refused", () => {
  const policy = new Policy(module, good, imports);
  let refused = 0;
  for (let at = 0; at < good.length; at++) {
    for (const text of [good.slice(0, at), ...[..."{}[]\",:\\0-e\u0001"].map((c) => good.slice(0, at) + c + good.slice(at + 1))]) {
      try {
        new Policy(policy.module, text, imports);
      } catch (e) {
        assert.ok(e.message && !(e instanceof WebAssembly.RuntimeError), `${text}: ${e}`);
        refused++;
      }
    }
  }
  assert.ok(refused > 5 * good.length);
});
