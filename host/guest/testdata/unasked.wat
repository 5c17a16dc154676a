;; Imports a function of the host without asking for its capability.
(module
  (import "callout" "log" (func (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func (export "callout_classify") (result i64) (i64.const 1)))
