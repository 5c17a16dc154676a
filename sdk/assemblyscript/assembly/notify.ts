// The export of a policy that hears of events (onNotify). Its entry file has
//
//     export * from "callout/assembly/notify";

import { notify } from "./index";

export function callout_notify(kind: u32): i32 { return notify(kind); }
