// tenant-egress: what the users of a machine connect goes to the proxy of their
// tenant, and nothing goes around it. See README.md for the configuration.

import { Bytes, Call, Verdict, ask, block, failed, onConfigure, proceed, register } from "../../sdk/assemblyscript/assembly";
import { CAP_SETS, PRESENT_UID } from "../../sdk/assemblyscript/assembly/abi";
import { cidr_match } from "../../sdk/assemblyscript/assembly/host";
import { Kind, Value, parse } from "../../sdk/assemblyscript/assembly/json";
import { Proxy, decimal, keys, list, number, refusal, refuse, text } from "../config";
import { REDIRECTED, asksWhere, reachable, sendTo } from "../redirect";
export * from "../../sdk/assemblyscript/assembly/exports";

ask(CAP_SETS, 0);

/** Tenants are for ranges of users. */
@final
class Tenant {
  name: string = "";
  low: u32[] = [];
  high: u32[] = [];
  proxy: Proxy | null = null; // null: it connects directly
  blocked: string = "";

  has(user: u32): bool {
    for (let i = 0; i < this.low.length; i++) {
      if (user >= unchecked(this.low[i]) && user <= unchecked(this.high[i])) return true;
    }
    return false;
  }
}

const tenants: Tenant[] = [];
let otherwise: Tenant | null = null; // null: block
let direct: i32 = -1; // the set, if there is one

function user(v: Value, at: string, t: Tenant): void {
  let low = v.number, high = v.number, ok = v.within(0, u32.MAX_VALUE);
  if (v.kind == Kind.TEXT) {
    const ends = v.text.split("-");
    low = decimal(ends[0], u32.MAX_VALUE);
    high = ends.length == 2 ? decimal(ends[1], u32.MAX_VALUE) : low;
    ok = ends.length <= 2 && low >= 0 && low <= high;
  }
  if (!ok) refuse(`${at}: expected the number of a user or a range such as 1000-1999`);
  t.low.push(<u32>low);
  t.high.push(<u32>high);
}

function tenant(v: Value, at: string): Tenant {
  const t = new Tenant();
  if (!keys(v, at, ["name", "users", "proxy", "pid"])) return t;
  t.name = text(v.get("name"), at + ".name");
  t.blocked = `tenant ${t.name} connects through its proxy only, with TCP over IPv4`;
  const users = v.get("users");
  if (users !== null) {
    const all = list(users, at + ".users");
    for (let i = 0; i < all.length; i++) user(all[i], `${at}.users[${i}]`, t);
  }
  if (v.get("proxy") === null) {
    if (v.get("pid") !== null) refuse(`${at}.proxy: required with pid`);
    return t;
  }
  const proxy = new Proxy();
  proxy.read(v.get("proxy"), v.get("pid"), at + ".");
  t.proxy = proxy;
  return t;
}

onConfigure((config: Bytes, _: u32): string | null => {
  const v = parse(config);
  if (v === null) return "the configuration is no JSON";
  if (!keys(v, "the configuration", ["tenants", "otherwise", "direct"])) return refusal;
  const all = list(v.get("tenants"), "tenants");
  for (let i = 0; i < all.length; i++) tenants.push(tenant(all[i], `tenants[${i}]`));
  if (v.get("direct") !== null) direct = <i32>number(v.get("direct"), "direct", 0, i32.MAX_VALUE, "${set:ID}");
  if (v.get("otherwise") === null) return refusal;
  const name = text(v.get("otherwise"), "otherwise");
  for (let i = 0; i < tenants.length; i++) {
    if (tenants[i].name == name) otherwise = tenants[i];
  }
  if (otherwise === null && name != "block") refuse(`otherwise: "${name}" is neither block nor the name of a tenant`);
  return refusal;
});

/** Whose connection it is; null if nobody's. */
function tenantOf(call: Call): Tenant | null {
  if (call.present & PRESENT_UID) {
    for (let i = 0; i < tenants.length; i++) {
      if (unchecked(tenants[i]).has(call.uid)) return unchecked(tenants[i]);
    }
  }
  return otherwise;
}

register((call: Call): Verdict => {
  if (call.bySelf) return proceed();
  if (!asksWhere(call) && (call.flags & REDIRECTED) != 0) return proceed();
  if (direct >= 0) {
    const found = cidr_match(direct);
    if (found < 0) return failed("the set of networks that are reached directly cannot be asked");
    if (found > 0) return proceed();
  }
  const t = tenantOf(call);
  if (t === null) return asksWhere(call) ? proceed() : block("this user belongs to no tenant");
  const proxy = t.proxy;
  if (proxy === null) return proceed();
  if (!asksWhere(call)) return block(t.blocked);
  if (call.protocol != 6 || !reachable(call)) return proceed(); // ALE_AUTH_CONNECT blocks it (CH-16).
  return sendTo(proxy, call);
});
