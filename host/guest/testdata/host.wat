;; Calls a function of the host, which the destination port names, and tells its
;; result in a record of 8 bytes. What it reads comes in the context.
(module
  (import "callout" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "callout" "random" (func $random (param i32 i32) (result i32)))
  (import "callout" "wall" (func $wall (result i64)))
  (import "callout" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "callout" "kv_set" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "callout" "kv_del" (func $del (param i32 i32) (result i32)))
  (import "callout" "metric_add" (func $metric (param i32 i32 i64) (result i32)))
  (import "callout" "cidr_match" (func $cidr (param i32) (result i32)))
  (import "callout" "table_lookup" (func $table (param i32) (result i32)))
  (import "callout" "dns_names" (func $names (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 512) "keyvaluea line\n")
  (global $granted (mut i32) (i32.const 0))
  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  ;; log is required, everything else is optional
  (func (export "callout_caps") (result i64) (i64.const 0xfe00000001))
  (func (export "callout_init") (param i32) (result i32)
    (global.set $granted (i32.load (i32.const 9224)))
    (i32.or (i32.ne (i32.load (i32.const 9216)) (i32.const 12)) (i32.load16_u (i32.const 9220))))
  (func $port (param i32) (result i32) (i32.eq (local.get 0) (i32.load16_u (i32.const 1068))))
  (func $tell (param $result i64) (result i64)
    (i32.store (i32.const 9216) (i32.const 3))
    (i32.store16 (i32.const 9224) (i32.const 8080))
    (i32.store8 (i32.const 9226) (i32.const 4))
    (i32.store16 (i32.const 9242) (i32.const 0xffff))
    (i32.store (i32.const 9244) (i32.const 0x0100007f))
    (i64.store (i32.const 9280) (local.get $result))
    (i32.store (i32.const 9248) (i32.const 8))
    (i32.store (i32.const 9256) (i32.const 8256))
    (i32.store (i32.const 9252) (i32.const 16))
    (i32.store (i32.const 9260) (i32.const 8264))
    (i64.const 0x81f900003))
  (func (export "callout_classify") (result i64)
    (if (call $port (i32.const 1)) (then (return (i64.const 1))))
    (if (call $port (i32.const 2)) (then (return (call $tell (i64.extend_i32_u (global.get $granted))))))
    (if (call $port (i32.const 3)) (then (return (call $tell (i64.extend_i32_s (call $log (i32.const 1) (i32.const 520) (i32.const 6)))))))
    (if (call $port (i32.const 4)) (then (return (call $tell (i64.extend_i32_s (call $random (i32.const 9288) (i32.const 16)))))))
    (if (call $port (i32.const 5)) (then (return (call $tell (call $wall)))))
    (if (call $port (i32.const 6)) (then (return (call $tell (i64.extend_i32_s
      (call $set (i32.const 512) (i32.const 3) (i32.const 515) (i32.const 5) (i32.const 0)))))))
    (if (call $port (i32.const 7)) (then (return (call $tell (i64.extend_i32_s
      (call $get (i32.const 512) (i32.const 3) (i32.const 9288) (i32.const 16)))))))
    (if (call $port (i32.const 8)) (then (return (call $tell (i64.extend_i32_s (call $del (i32.const 512) (i32.const 3)))))))
    (if (call $port (i32.const 9)) (then (return (call $tell (i64.extend_i32_s
      (call $metric (i32.const 512) (i32.const 3) (i64.const 2)))))))
    (if (call $port (i32.const 10)) (then (return (call $tell (i64.extend_i32_s (call $cidr (i32.const 0)))))))
    (if (call $port (i32.const 11)) (then (return (call $tell (i64.extend_i32_s (call $cidr (i32.const 7)))))))
    (if (call $port (i32.const 12)) (then (return (call $tell (i64.extend_i32_s (call $table (i32.const 0)))))))
    (if (call $port (i32.const 13)) (then (return (call $tell (i64.extend_i32_s (call $names (i32.const 9288) (i32.const 16)))))))
    ;; pointers and lengths that are wrong
    (if (call $port (i32.const 20)) (then (return (call $tell (i64.extend_i32_s (call $log (i32.const 1) (i32.const -1) (i32.const 2)))))))
    (if (call $port (i32.const 21)) (then (return (call $tell (i64.extend_i32_s (call $random (i32.const 65535) (i32.const 2)))))))
    (if (call $port (i32.const 22)) (then (return (call $tell (i64.extend_i32_s (call $random (i32.const 0) (i32.const -1)))))))
    (if (call $port (i32.const 23)) (then (return (call $tell (i64.extend_i32_s
      (call $set (i32.const 512) (i32.const 3) (i32.const 0) (i32.const 4097) (i32.const 0)))))))
    (if (call $port (i32.const 24)) (then (return (call $tell (i64.extend_i32_s
      (call $set (i32.const 512) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))))))
    (if (call $port (i32.const 25)) (then (return (call $tell (i64.extend_i32_s
      (call $get (i32.const 512) (i32.const 3) (i32.const 9288) (i32.const 4)))))))
    (if (call $port (i32.const 26)) (then (return (call $tell (i64.extend_i32_s
      (call $get (i32.const -1) (i32.const 3) (i32.const 9288) (i32.const 4)))))))
    (if (call $port (i32.const 27)) (then (return (call $tell (i64.extend_i32_s
      (call $metric (i32.const 0) (i32.const 65) (i64.const 2)))))))
    (if (call $port (i32.const 28)) (then (return (call $tell (i64.extend_i32_s (call $names (i32.const 9288) (i32.const 3)))))))
    (if (call $port (i32.const 29)) (then (loop $l (drop (call $wall)) (br $l)))) ;; too many
    (i64.const 2)))
