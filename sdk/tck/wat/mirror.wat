;; The guest of the TCK, by hand: answers by the destination port. See ../mirror.md.
;;
;; The exchange block is at 1024, so the response is at 9216. Other places: 20480
;; the record, 24576 a long context, 32768 a long reason, 36864 the ends of the
;; configuration, 65536 the configuration itself.
(module
  (memory (export "memory") 2)
  (data (i32.const 17408) "no such place")                                ;; 13 bytes
  (data (i32.const 17424) "context")                                      ;; 7
  (data (i32.const 17440) "again")                                        ;; 5
  (data (i32.const 17456) "the callout gave no verdict")                  ;; 27
  (data (i32.const 17488) "the record is over the limit of 3456 bytes")   ;; 42
  (data (i32.const 17536) "the context is over the limit of 4096 bytes")  ;; 43
  (data (i32.const 17584) "because")                                      ;; 7
  (data (i32.const 17600) "it broke")                                     ;; 8
  (data (i32.const 17616) "a request item is outside the request")        ;; 37
  (data (i32.const 17728) "no such filter")                               ;; 14
  (data (i32.const 17744) "no such flow")                                 ;; 12
  (data (i32.const 17760) "no such connection")                           ;; 18
  (data (i32.const 17664) "refused")                                      ;; 7
  (data (i32.const 17680) "the configuration is over the limit")          ;; 35
  (global $at (mut i32) (i32.const 0))      ;; where the next item of the response goes, from the block's start
  (global $out (mut i32) (i32.const 0))     ;; where the next byte of the record goes
  (global $granted (mut i32) (i32.const 0))
  (global $config (mut i32) (i32.const 0))  ;; its length

  (func (export "callout_abi_v1") (result i32) (i32.const 1024))
  (func (export "callout_caps") (result i64) (i64.const 0xff00000000))

  ;; copies an item to the response and says where it is
  (func $append (param $ptr i32) (param $len i32) (param $off_field i32) (param $len_field i32)
    (memory.copy (i32.add (i32.const 1024) (global.get $at)) (local.get $ptr) (local.get $len))
    (i32.store (i32.add (i32.const 9216) (local.get $off_field)) (global.get $at))
    (i32.store (i32.add (i32.const 9216) (local.get $len_field)) (local.get $len))
    (global.set $at (i32.add (global.get $at) (local.get $len))))

  ;; writes an answer that is no redirect
  (func $answer (param $action i32) (param $flags i32) (param $reason i32) (param $len i32) (result i64)
    (if (local.get $len) (then
      (global.set $at (i32.const 8256))
      (i32.store (i32.const 9216) (local.get $action))
      (i32.store (i32.const 9220) (local.get $flags))
      (call $append (local.get $reason) (local.get $len) (i32.const 48) (i32.const 52))))
    (i64.or (i64.extend_i32_u (local.get $action)) (i64.shl (i64.extend_i32_u (local.get $flags)) (i64.const 48))))

  (func $failed (param $reason i32) (param $len i32) (result i64)
    (call $answer (i32.const 0xffff) (i32.const 0) (local.get $reason) (local.get $len)))

  ;; writes a redirect; the address has been written
  (func $redirect (param $flags i32) (param $version i32) (param $pid i32)
      (param $record i32) (param $rlen i32) (param $context i32) (param $clen i32) (result i64)
    (i32.store (i32.const 9216) (i32.const 3))
    (i32.store (i32.const 9220) (local.get $flags))
    (i32.store16 (i32.const 9224) (i32.const 8080))
    (i32.store8 (i32.const 9226) (local.get $version))
    (i32.store (i32.const 9228) (local.get $pid))
    (global.set $at (i32.const 8256))
    (call $append (local.get $record) (local.get $rlen) (i32.const 40) (i32.const 32))
    (call $append (local.get $context) (local.get $clen) (i32.const 44) (i32.const 36))
    (call $append (i32.const 0) (i32.const 0) (i32.const 48) (i32.const 52))
    (i64.or (i64.or (i64.const 0x1f900003) (i64.shl (i64.extend_i32_u (local.get $rlen)) (i64.const 32)))
      (i64.shl (i64.extend_i32_u (local.get $flags)) (i64.const 48))))

  ;; to 127.0.0.1:8080, process 77
  (func $to (param $flags i32) (param $record i32) (param $rlen i32) (param $context i32) (param $clen i32) (result i64)
    (if (i32.gt_u (local.get $rlen) (i32.const 3456)) (then (return (call $failed (i32.const 17488) (i32.const 42)))))
    (if (i32.gt_u (local.get $clen) (i32.const 4096)) (then (return (call $failed (i32.const 17536) (i32.const 43)))))
    (i64.store (i32.const 9240) (i64.const 0x0100007fffff0000))
    (call $redirect (local.get $flags) (i32.const 4) (i32.const 77)
      (local.get $record) (local.get $rlen) (local.get $context) (local.get $clen)))

  ;; whether an item is inside the request; offset 0 is nothing
  (func $inside (param $off i32) (param $len i32) (result i32)
    (i32.or (i32.or (i32.eqz (local.get $off)) (i32.eqz (local.get $len)))
      (i32.and (i32.ge_u (local.get $off) (i32.const 128))
        (i64.le_u (i64.add (i64.extend_i32_u (local.get $off)) (i64.extend_i32_u (local.get $len))) (i64.const 8192)))))
  (func $item_inside (param $field i32) (result i32)
    (call $inside (i32.load (i32.add (i32.const 1024) (local.get $field))) (i32.load (i32.add (i32.const 1028) (local.get $field)))))

  (func $put (param $ptr i32) (param $len i32)
    (memory.copy (global.get $out) (local.get $ptr) (local.get $len))
    (global.set $out (i32.add (global.get $out) (local.get $len))))
  ;; the length of an item and, if it is there, its bytes
  (func $put_item (param $off i32) (param $len i32)
    (i32.store (global.get $out) (local.get $len))
    (global.set $out (i32.add (global.get $out) (i32.const 4)))
    (if (local.get $off) (then (call $put (i32.add (i32.const 1024) (local.get $off)) (local.get $len)))))
  (func $put_field (param $field i32)
    (call $put_item (i32.load (i32.add (i32.const 1024) (local.get $field))) (i32.load (i32.add (i32.const 1028) (local.get $field)))))

  (func $mirror
    (global.set $out (i32.const 20480))
    (call $put (i32.const 1030) (i32.const 2))  ;; layer
    (call $put (i32.const 1065) (i32.const 1))  ;; protocol
    (call $put (i32.const 1071) (i32.const 1))  ;; direction
    (call $put (i32.const 1036) (i32.const 4))  ;; condition flags
    (call $put (i32.const 1040) (i32.const 16)) ;; connection, filter
    (call $put (i32.const 1032) (i32.const 4))  ;; present
    (call $put (i32.const 1056) (i32.const 8))  ;; process, user
    (call $put (i32.const 1064) (i32.const 1))  ;; IP version
    (call $put (i32.const 1070) (i32.const 1))  ;; state
    (call $put (i32.const 1066) (i32.const 4))  ;; ports
    (call $put (i32.const 1072) (i32.const 32)) ;; addresses
    (call $put (i32.const 1136) (i32.const 12)) ;; clock, interface
    (call $put_field (i32.const 80))
    (call $put_field (i32.const 88))
    (call $put_item (i32.load16_u (i32.const 1148)) (i32.load16_u (i32.const 1150)))
    (call $put_field (i32.const 96))
    (call $put_field (i32.const 104)))

  ;; the long reason, cut to 1023 bytes, which is between two characters
  (func $long (result i64) (local $i i32)
    (i32.store8 (i32.const 32768) (i32.const 0x61))
    (loop $l
      (i32.store16 (i32.add (i32.const 32769) (local.get $i)) (i32.const 0xa9c3))
      (local.set $i (i32.add (local.get $i) (i32.const 2)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 1998))))
    (call $answer (i32.const 2) (i32.const 0) (i32.const 32768) (i32.const 1023)))

  (func $configured (result i64)
    (i32.store (i32.const 20480) (global.get $granted))
    (i32.store (i32.const 20484) (global.get $config))
    (memory.copy (i32.const 20488) (i32.const 36864) (i32.const 32))
    (call $to (i32.const 0) (i32.const 20480) (i32.const 40) (i32.const 0) (i32.const 0)))

  (func (export "callout_classify") (result i64)
    (if (i32.eqz (i32.and (i32.and (call $item_inside (i32.const 80)) (call $item_inside (i32.const 88)))
          (i32.and (i32.and (call $item_inside (i32.const 96)) (call $item_inside (i32.const 104)))
            (call $inside (i32.load16_u (i32.const 1148)) (i32.load16_u (i32.const 1150))))))
      (then (return (call $failed (i32.const 17616) (i32.const 37)))))
    (block $15 (block $14 (block $13 (block $12 (block $11 (block $10 (block $9 (block $8 (block $7
    (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $else
      (br_table $else $1 $2 $3 $4 $5 $6 $7 $8 $9 $10 $11 $12 $13 $14 $15 $else (i32.load16_u (i32.const 1068))))
    (return (call $configured)))
    (return (i64.const 1)))
    (return (call $answer (i32.const 2) (i32.const 0) (i32.const 17408) (i32.const 13))))
    (return (i64.const 4)))
    (call $mirror)
    (return (call $to (i32.const 0) (i32.const 20480) (i32.sub (global.get $out) (i32.const 20480)) (i32.const 17424) (i32.const 7))))
    (return (i64.const 0x1000000000001)))
    (i64.store (i32.const 9232) (i64.const 0xb80d0120))
    (i64.store (i32.const 9240) (i64.const 0x0100000000000000))
    (return (call $redirect (i32.const 4) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
    (return (call $to (i32.const 2) (i32.const 17440) (i32.const 5) (i32.const 0) (i32.const 0))))
    (return (call $failed (i32.const 17456) (i32.const 27))))
    (return (call $to (i32.const 0) (i32.const 20480) (i32.const 3457) (i32.const 0) (i32.const 0))))
    (return (call $to (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 24576) (i32.const 4097))))
    (memory.fill (i32.const 20480) (i32.const 0x72) (i32.const 3456))
    (memory.fill (i32.const 24576) (i32.const 0x63) (i32.const 4096))
    (return (call $to (i32.const 0) (i32.const 20480) (i32.const 3456) (i32.const 24576) (i32.const 4096))))
    (return (call $answer (i32.const 1) (i32.const 8) (i32.const 17584) (i32.const 7))))
    (return (call $long)))
    (return (call $failed (i32.const 17600) (i32.const 8))))
    (global.set $at (i32.const 8256))
    (i32.store (i32.const 9216) (i32.const 1))
    (i64.store (i32.const 9272) (i64.const 0x8122334455667788)) ;; the cookie
    (call $append (i32.const 0) (i32.const 0) (i32.const 48) (i32.const 52))
    (i64.const 1))

  (func $refuse (param $reason i32) (param $len i32) (result i32)
    (memory.fill (i32.const 9216) (i32.const 0) (i32.const 64))
    (drop (call $failed (local.get $reason) (local.get $len)))
    (i32.const -1))

  (func (export "callout_notify") (param $kind i32) (result i32)
    (if (i32.and (i32.eq (local.get $kind) (i32.const 1)) (i64.eq (i64.load (i32.const 1048)) (i64.const 0x800000000000000d)))
      (then (return (call $refuse (i32.const 17728) (i32.const 14)))))
    (if (i32.and (i32.eq (local.get $kind) (i32.const 4))
          (i32.or (i64.ne (i64.load (i32.const 9272)) (i64.const 0x8122334455667788))
            (i32.ne (i32.load16_u (i32.const 1030)) (i32.const 0x44))))
      (then (return (call $refuse (i32.const 17744) (i32.const 12)))))
    (if (i32.and (i32.or (i32.eq (local.get $kind) (i32.const 3)) (i32.eq (local.get $kind) (i32.const 5)))
          (i64.ne (i64.load (i32.const 1040)) (i64.const 0x9000000000000009)))
      (then (return (call $refuse (i32.const 17760) (i32.const 18)))))
    (i32.const 0))

  (func (export "callout_init") (param $arg i32) (result i32) (local $n i32) (local $i i32)
    (local.set $n (i32.and (local.get $arg) (i32.const 0x7fffffff)))
    (global.set $granted (i32.load (i32.const 9224)))
    (if (i32.or (i32.gt_u (local.get $n) (i32.const 8192)) (i32.gt_u (i32.add (local.get $n) (global.get $config)) (i32.const 65536)))
      (then (return (call $refuse (i32.const 17680) (i32.const 35)))))
    (memory.copy (i32.add (i32.const 65536) (global.get $config)) (i32.const 1024) (local.get $n))
    (global.set $config (i32.add (global.get $config) (local.get $n)))
    (if (i32.lt_s (local.get $arg) (i32.const 0)) (then (return (i32.const 0))))
    (if (i32.and (i32.gt_u (global.get $config) (i32.const 0)) (i32.eq (i32.load8_u (i32.const 65536)) (i32.const 0x21)))
      (then (return (call $refuse (i32.const 17664) (i32.const 7)))))
    (block $done (loop $l
      (br_if $done (i32.or (i32.ge_u (local.get $i) (i32.const 16)) (i32.ge_u (local.get $i) (global.get $config))))
      (i32.store8 (i32.add (i32.const 36864) (local.get $i)) (i32.load8_u (i32.add (i32.const 65536) (local.get $i))))
      (i32.store8 (i32.add (i32.const 36880) (local.get $i))
        (i32.load8_u (i32.sub (i32.add (i32.const 65535) (global.get $config)) (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $l)))
    (i32.const 0)))
