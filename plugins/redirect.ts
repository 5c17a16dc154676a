// Redirects of the plugins in AssemblyScript.

import { Call, Verdict, redirect, redirect6 } from "../sdk/assemblyscript/assembly";
import { Proxy } from "./config";

/** FWP_CONDITION_FLAG_IS_CONNECTION_REDIRECTED */
export const REDIRECTED: u32 = 0x00100000;

/** Reports whether it is asked where a connection is to go, rather than whether. */
export function asksWhere(call: Call): bool {
  return call.layer == 66 || call.layer == 67; // FWPS_LAYER_ALE_CONNECT_REDIRECT_V4, _V6
}

/** Reports whether the connection can go to an IPv4 proxy: a redirect keeps the family (CR-07). */
export function reachable(call: Call): bool {
  return load<u64>(call.remote) == 0 && load<u32>(call.remote + 8) == 0xffff0000;
}

const context: usize = memory.data(128, 8);

/** Sends a connection to a proxy, whose context is the SOCKADDR_STORAGE of where it was going. */
export function sendTo(proxy: Proxy, call: Call): Verdict {
  memory.fill(context, 0, 128);
  store<u16>(context + 2, bswap<u16>(call.remotePort));
  const a = proxy.address;
  let v: Verdict;
  if (call.ipVersion == 4) {
    store<u16>(context, 2); // AF_INET
    store<u32>(context + 4, load<u32>(call.remote + 12));
    v = redirect(<u8>(a >> 24), <u8>(a >> 16), <u8>(a >> 8), <u8>a, proxy.port, proxy.pid);
  } else {
    store<u16>(context, 23); // AF_INET6
    memory.copy(context + 8, call.remote, 16);
    v = redirect6(0, <u64>bswap<u32>(a) << 32 | 0xffff0000, proxy.port, proxy.pid);
  }
  return v.withContext(context, 128);
}
