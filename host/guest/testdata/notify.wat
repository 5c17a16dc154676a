;; Blocks for a filter that it did not hear of. Refuses filter 13, traps for
;; filter 14, and wants to hear nothing more at filter 15. For a flow it gives the cookie 77, and counts the cookies that come
;; back right: destination port 2 redirects with the count as its record. A flow
;; that is established with its cookie counts 256, a redirect of connection 9 whose
;; record has 8 bytes 65536. Port 5 is an endless loop of an event.
;; A cookie of 66 that comes back is a trap, and so is housekeeping after port 8.
;; At port 6 the answer has a cookie and a reason that is not UTF-8.
(module
  (memory (export "memory") 1)
  (global $flows (mut i64) (i64.const 0))
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func $known (param $id i64) (result i32) (i32.add (i32.const 512) (i32.wrap_i64 (i64.and (local.get $id) (i64.const 63)))))
  (func (export "callout_notify") (param $event i32) (result i32)
    (if (i32.eq (local.get $event) (i32.const 1)) (then
      (if (i64.eq (i64.load (i32.const 1048)) (i64.const 13)) (then (return (i32.const 5))))
      (if (i64.eq (i64.load (i32.const 1048)) (i64.const 14)) (then unreachable))
      (if (i64.eq (i64.load (i32.const 1048)) (i64.const 15)) (then (return (i32.const 0x40000000))))
      (i32.store8 (call $known (i64.load (i32.const 1048))) (i32.const 1))))
    (if (i32.eq (local.get $event) (i32.const 2)) (then
      (i32.store8 (call $known (i64.load (i32.const 1048))) (i32.const 0))))
    (if (i32.eq (local.get $event) (i32.const 4)) (then
      (if (i64.eq (i64.load (i32.const 9272)) (i64.const 66)) (then unreachable))
      (if (i64.eq (i64.load (i32.const 9272)) (i64.const 77)) (then
        (global.set $flows (i64.add (global.get $flows) (i64.const 1)))))))
    (if (i32.eq (local.get $event) (i32.const 3)) (then
      (if (i32.eq (i32.load16_u (i32.const 1068)) (i32.const 5)) (then (loop $l (br $l))))
      (if (i64.eq (i64.load (i32.const 9272)) (i64.const 77)) (then
        (global.set $flows (i64.add (global.get $flows) (i64.const 256)))))))
    (if (i32.eq (local.get $event) (i32.const 5)) (then
      (if (i32.and (i64.eq (i64.load (i32.const 1040)) (i64.const 9)) (i32.eq (i32.load (i32.const 1124)) (i32.const 8))) (then
        (global.set $flows (i64.add (global.get $flows) (i64.const 65536)))))))
    (i32.const 0))
  (func (export "callout_idle") (param i32) (result i32)
    (if (i32.eq (i32.load16_u (i32.const 1068)) (i32.const 8)) (then unreachable))
    (i32.const 0))
  (func (export "callout_classify") (result i64)
    (if (i32.eq (i32.load16_u (i32.const 1068)) (i32.const 2)) (then
      (i32.store (i32.const 9216) (i32.const 3))
      (i32.store8 (i32.const 9226) (i32.const 4))
      (i32.store16 (i32.const 9242) (i32.const 0xffff))
      (i64.store (i32.const 9280) (global.get $flows))
      (i32.store (i32.const 9248) (i32.const 8))
      (i32.store (i32.const 9256) (i32.const 8256))
      (return (i64.const 0x800000003))))
    (i64.store (i32.const 9272) (i64.const 77))
    (if (i32.eq (i32.load16_u (i32.const 1068)) (i32.const 6)) (then
      (i32.store (i32.const 9264) (i32.const 8256))
      (i32.store (i32.const 9268) (i32.const 1))
      (i32.store8 (i32.const 9280) (i32.const 0xff))
      (return (i64.const 1))))
    (if (i32.eq (i32.load16_u (i32.const 1068)) (i32.const 1)) (then (return (i64.const 1))))
    (i64.extend_i32_u (i32.sub (i32.const 2) (i32.load8_u (call $known (i64.load (i32.const 1048))))))))
