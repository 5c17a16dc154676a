// Runs a policy in Node.js with the same words as the engine has.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const actions = { 1: "permit", 2: "block", 3: "redirect", 4: "continue", 0xffff: "error" };
const prelude = /R"js\(([^]*)\)js"/.exec(readFileSync(new URL("../prelude.cc", import.meta.url), "utf8"))[1];

export class Policy {
  /** Loads a script and gives it its configuration. host stands for the host's functions. */
  constructor(url, config = "", host = {}) {
    this.context = vm.createContext({ host });
    vm.runInContext(prelude, this.context, "prelude.js");
    vm.runInContext(readFileSync(url, "utf8"), this.context, "policy.js");
    const why = this.context.configure?.(config, 0);
    if (typeof why === "string") throw new Error(why);
  }

  /** Decides a call: what is not given is as for a program of the system. */
  decide({ remote = "93.184.216.34", ...rest }) {
    const v4 = remote.includes(".") ? remote.split(".").map(Number) : [0, 0, 0, 0];
    const call = {
      layer: 0, protocol: 6, inbound: false, flags: 0, connection: 1n, filter: 7n, present: 0x3ff, pid: 9, uid: 0, ipVersion: 4,
      state: 0, remotePort: 0, remote, remoteBytes: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...v4),
      remoteV4: v4.reduce((n, part) => n * 256 + part), app: "/usr/bin/curl", user: "", hostname: "", ...rest,
    };
    call.bySelf = call.state === 1 || call.state === 3;
    const v = this.context.classify(call);
    return { ...v, action: actions[v.action] };
  }
}
