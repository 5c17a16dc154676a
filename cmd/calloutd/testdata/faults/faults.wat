;; A callout with three faults: it traps for one port of one network, answers
;; every second flow to port 53 over UDP otherwise, and sends port 8088 to the proxy
;; without asking whether the proxy itself connects.
(module
  (memory (export "memory") 1)
  (global $asked (mut i32) (i32.const 0))
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func $port (result i32) (i32.load16_u (i32.const 1068)))
  ;; 198.51.100.0/24: the first three bytes of a v4-mapped address
  (func $network (result i32)
    (i32.eq (i32.and (i32.load (i32.const 1100)) (i32.const 0xffffff)) (i32.const 0x6433c6)))
  (func $trap (if (call $network) (then unreachable)))
  (func $redirect (result i64)
    (i32.store (i32.const 9216) (i32.const 3))
    (i32.store16 (i32.const 9224) (i32.const 18080))
    (i32.store8 (i32.const 9226) (i32.const 4))
    (i32.store (i32.const 9228) (i32.const 1))
    (i32.store16 (i32.const 9242) (i32.const 0xffff))
    (i32.store (i32.const 9244) (i32.const 0x0100007f))
    (i64.const 0x46a00003))
  (func (export "callout_classify") (result i64)
    (if (i32.eq (call $port) (i32.const 4242)) (then (call $trap)))
    (if (i32.and (i32.eq (call $port) (i32.const 53)) (i32.eq (i32.load8_u (i32.const 1065)) (i32.const 17))) (then
      (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
      (if (i32.and (global.get $asked) (i32.const 2)) (then (return (i64.const 2))))))
    (if (i32.and (i32.eq (call $port) (i32.const 8088)) (i32.eq (i32.load8_u (i32.const 1065)) (i32.const 6)))
      (then (return (call $redirect))))
    (i64.const 4)))
