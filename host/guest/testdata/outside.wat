(module (memory (export "memory") 1)
  (func (export "callout_abi_v1") (result i32) (i32.const 65472))
  (func (export "callout_classify") (result i64) (i64.const 1)))
