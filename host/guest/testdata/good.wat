;; Answers by the destination port: 1 permits, 2 blocks with a reason, 3
;; redirects with a record and a context, 4 continues, 5 echoes the record and
;; keeps the context of the hop, 6 permits hard, 7 redirects to version 6.
;; Port 8 permits once housekeeping was done, else blocks. Port 9 redirects with
;; the longest record and context; port 10 tells where the context of the hop is
;; and how long, in a record of 8 bytes.
(module
  (memory (export "memory") 1)
  (global $idle (mut i32) (i32.const 0))
  (global $init (mut i32) (i32.const 0))
  (data (i32.const 512) "no such place")
  (func (export "_initialize"))
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func (export "callout_idle") (param i32) (result i32)
    (global.set $idle (i32.const 1)) (i32.const 0))
  ;; refuses a configuration that begins with "!", counts bytes
  (func (export "callout_init") (param $n i32) (result i32)
    (global.set $init (i32.add (global.get $init) (i32.and (local.get $n) (i32.const 0x7fffffff))))
    (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 33)))
  (func $to (param $version i32)
    (i32.store (i32.const 9216) (i32.const 3))
    (i32.store16 (i32.const 9224) (i32.const 8080))
    (i32.store8 (i32.const 9226) (local.get $version))
    (i32.store (i32.const 9228) (i32.const 77))
    (i32.store16 (i32.const 9242) (i32.const 0xffff))
    (i32.store (i32.const 9244) (i32.const 0x0100007f)))
  (func $answer (param $flags i64) (result i64)
    (i64.store32 (i32.const 9220) (local.get $flags))
    (i64.or (i64.or (i64.const 3) (i64.shl (i64.load16_u (i32.const 9224)) (i64.const 16)))
      (i64.or (i64.shl (i64.load16_u (i32.const 9248)) (i64.const 32)) (i64.shl (local.get $flags) (i64.const 48)))))
  (func (export "callout_classify") (result i64)
    (local $port i32)
    (local.set $port (i32.load16_u (i32.const 1068)))
    (if (i32.eq (local.get $port) (i32.const 1)) (then (return (i64.const 1))))
    (if (i32.eq (local.get $port) (i32.const 2)) (then
      (memory.copy (i32.const 9280) (i32.const 512) (i32.const 13))
      (i32.store (i32.const 9264) (i32.const 8256))
      (i32.store (i32.const 9268) (i32.const 13))
      (return (i64.const 2))))
    (if (i32.eq (local.get $port) (i32.const 3)) (then
      (call $to (i32.const 4))
      (memory.copy (i32.const 9280) (i32.const 512) (i32.const 13))
      (i32.store (i32.const 9248) (i32.const 7))
      (i32.store (i32.const 9252) (i32.const 5))
      (i32.store (i32.const 9256) (i32.const 8256))
      (i32.store (i32.const 9260) (i32.const 8264))
      (return (call $answer (i64.const 0)))))
    (if (i32.eq (local.get $port) (i32.const 4)) (then (return (i64.const 4))))
    (if (i32.eq (local.get $port) (i32.const 5)) (then
      (call $to (i32.const 4))
      (memory.copy (i32.const 9280)
        (i32.add (i32.const 1024) (i32.load (i32.const 1120))) (i32.load (i32.const 1124)))
      (i32.store (i32.const 9248) (i32.load (i32.const 1124)))
      (i32.store (i32.const 9256) (i32.const 8256))
      (return (call $answer (i64.const 2)))))
    (if (i32.eq (local.get $port) (i32.const 6)) (then (return (i64.const 0x1000000000001))))
    (if (i32.eq (local.get $port) (i32.const 7)) (then
      (call $to (i32.const 6))
      (return (call $answer (i64.const 4)))))
    (if (i32.eq (local.get $port) (i32.const 8)) (then
      (return (i64.extend_i32_u (i32.sub (i32.const 2) (global.get $idle))))))
    (if (i32.eq (local.get $port) (i32.const 9)) (then
      (call $to (i32.const 4))
      (memory.fill (i32.const 9280) (i32.const 0x72) (i32.const 3456))
      (memory.fill (i32.const 12736) (i32.const 0x63) (i32.const 4096))
      (i32.store (i32.const 9248) (i32.const 3456))
      (i32.store (i32.const 9252) (i32.const 4096))
      (i32.store (i32.const 9256) (i32.const 8256))
      (i32.store (i32.const 9260) (i32.const 11712))
      (return (call $answer (i64.const 0)))))
    (if (i32.eq (local.get $port) (i32.const 10)) (then
      (call $to (i32.const 4))
      (i64.store (i32.const 9280) (i64.load (i32.const 1128)))
      (i32.store (i32.const 9248) (i32.const 8))
      (i32.store (i32.const 9256) (i32.const 8256))
      (return (call $answer (i64.const 0)))))
    (i64.const 2)))
