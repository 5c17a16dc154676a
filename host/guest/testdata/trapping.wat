;; Starts, and traps when it is asked.
(module
  (memory (export "memory") 1)
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func (export "callout_classify") (result i64) unreachable))
