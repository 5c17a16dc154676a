// The exports of the ABI. A policy's entry file has
//
//     export * from "callout/assembly/exports";

import { BLOCK, capabilities, classify, init } from "./index";

export function callout_abi_v1(): usize { return BLOCK; }
export function callout_caps(): u64 { return capabilities(); }
export function callout_init(arg: u32): i32 { return init(arg); }
export function callout_classify(): u64 { return classify(); }

/** Collects garbage, off the path of decisions. */
export function callout_idle(_ms: i32): i32 {
  __collect();
  return 0;
}
