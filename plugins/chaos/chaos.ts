// chaos: a share of connections goes to a proxy that fails, so that one can see
// what programs make of it. See README.md for the configuration.

import { Bytes, Call, Verdict, ask, onConfigure, proceed, register } from "../../sdk/assemblyscript/assembly";
import { CAP_LOG, CAP_RANDOM } from "../../sdk/assemblyscript/assembly/abi";
import { log, random } from "../../sdk/assemblyscript/assembly/host";
import { Value, parse } from "../../sdk/assemblyscript/assembly/json";
import { Proxy, keys, list, number, refusal, refuse, text } from "../config";
import { reachable, sendTo } from "../redirect";
export * from "../../sdk/assemblyscript/assembly/exports";

ask(0, CAP_RANDOM | CAP_LOG);

/** Rules have a sequence each, so that one does not move the other's. */
@final
class Rule {
  programs: string[] = [];
  ports: u16[] = [];
  share: u64 = 0; // percent
  state: u64 = 0;

  concerns(call: Call): bool {
    return this.names(call) && (this.ports.length == 0 || this.ports.includes(call.remotePort));
  }

  names(call: Call): bool {
    for (let i = 0; i < this.programs.length; i++) {
      const p = unchecked(this.programs[i]);
      if (<u32>p.length == call.app.length && call.app.startsWith(p)) return true;
    }
    return this.programs.length == 0;
  }

  /** The next of the sequence (SplitMix64) says whether a connection fails. */
  fails(): bool {
    this.state += 0x9e3779b97f4a7c15;
    let z = this.state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return ((z ^ (z >> 31)) >> 11) % 100 < this.share;
  }
}

const rules: Rule[] = [];
const proxy = new Proxy();

function rule(v: Value, at: string, seed: u64): void {
  const r = new Rule();
  if (!keys(v, at, ["programs", "ports", "share"])) return;
  const programs = v.get("programs"), ports = v.get("ports");
  if (programs !== null) {
    const all = list(programs, at + ".programs");
    for (let i = 0; i < all.length; i++) {
      const p = text(all[i], `${at}.programs[${i}]`);
      if (!p.startsWith("/")) refuse(`${at}.programs[${i}]: "${p}" is not a whole path such as /usr/bin/curl`);
      r.programs.push(p);
    }
  }
  if (ports !== null) {
    const all = list(ports, at + ".ports");
    for (let i = 0; i < all.length; i++) r.ports.push(<u16>number(all[i], `${at}.ports[${i}]`, 1, 65535, "a port"));
  }
  r.share = number(v.get("share"), at + ".share", 0, 100, "how many of a hundred connections fail, 0 to 100");
  r.state = seed ^ (<u64>rules.length << 56);
  rules.push(r);
}

const scratch: usize = memory.data(8, 8);

/** The seed of the configuration, or one of the host's random, which the log tells. */
function seedOf(v: Value | null, granted: u32): u64 {
  if (v !== null) return number(v, "seed", 0, i64.MAX_VALUE, "a number that is not negative");
  if (!(granted & CAP_RANDOM) || random(scratch, 8) < 0) {
    refuse("seed: required where the callout may not use random");
    return 0;
  }
  const seed = load<u64>(scratch) >> 1; // What the configuration could say.
  if (granted & CAP_LOG) {
    const line = String.UTF8.encode(`seed ${seed}`);
    log(1, changetype<usize>(line), line.byteLength);
  }
  return seed;
}

onConfigure((config: Bytes, granted: u32): string | null => {
  const v = parse(config);
  if (v === null) return "the configuration is no JSON";
  if (!keys(v, "the configuration", ["proxy", "pid", "rules", "seed"])) return refusal;
  proxy.read(v.get("proxy"), v.get("pid"), "");
  const seed = seedOf(v.get("seed"), granted), all = list(v.get("rules"), "rules");
  for (let i = 0; i < all.length; i++) rule(all[i], `rules[${i}]`, seed);
  return refusal;
});

/** The first rule that concerns a connection counts. */
register((call: Call): Verdict => {
  if (call.bySelf || call.protocol != 6 || !reachable(call)) return proceed();
  for (let i = 0; i < rules.length; i++) {
    const r = unchecked(rules[i]);
    if (r.concerns(call)) return r.fails() ? sendTo(proxy, call).withReason("chaos: this one fails") : proceed();
  }
  return proceed();
});
