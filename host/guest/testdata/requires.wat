;; Requires a capability that no host has, and the store.
(module
  (memory (export "memory") 1)
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func (export "callout_caps") (result i64) (i64.const 0x100008))
  (func (export "callout_classify") (result i64) (i64.const 1)))
