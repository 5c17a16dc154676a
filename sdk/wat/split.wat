;; split: sends HTTPS of the programs under /usr/bin to a local proxy, but for
;; networks on a list.
;;
;; Configuration: "proxy PORT PID" on the first line, then a network such as
;; 198.51.100.0/24 on each line, at most 8192 bytes.
;;
;; The exchange block is at 1024, so the response is at 9216. The networks are at
;; 32768, the network and its mask in 8 bytes each.
(module
  (memory (export "memory") 1)
  (data (i32.const 512) "the proxy's own connection")              ;; 26 bytes
  (data (i32.const 544) "the first line is not: proxy PORT PID")   ;; 37
  (data (i32.const 592) "a network is not like 198.51.100.0/24")   ;; 37
  (data (i32.const 640) "the configuration is over the limit")     ;; 35
  (global $end (mut i32) (i32.const 32768)) ;; where the networks end
  (global $port (mut i32) (i32.const 0))
  (global $pid (mut i32) (i32.const 0))
  (global $at (mut i32) (i32.const 0))      ;; what is read of the configuration
  (global $last (mut i32) (i32.const 0))

  (func (export "callout_abi_v1") (result i32) (i32.const 1024))

  ;; writes a reason and returns the packed answer
  (func $because (param $action i32) (param $text i32) (param $len i32) (result i64)
    (i32.store (i32.const 9216) (local.get $action))
    (i32.store (i32.const 9264) (i32.const 8256))
    (i32.store (i32.const 9268) (local.get $len))
    (memory.copy (i32.const 9280) (local.get $text) (local.get $len))
    (i64.extend_i32_u (local.get $action)))

  (func $listed (param $address i32) (result i32) (local $p i32) (local $end i32)
    (local.set $p (i32.const 32768))
    (local.set $end (global.get $end))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
      (if (i32.eq (i32.and (local.get $address) (i32.load offset=4 (local.get $p))) (i32.load (local.get $p)))
        (then (return (i32.const 1))))
      (local.set $p (i32.add (local.get $p) (i32.const 8)))
      (br $next)))
    (i32.const 0))

  (func $swap (param $v i32) (result i32)
    (i32.or (i32.rotl (i32.and (local.get $v) (i32.const 0x00ff00ff)) (i32.const 24))
            (i32.rotl (i32.and (local.get $v) (i32.const 0xff00ff00)) (i32.const 8))))

  (func (export "callout_classify") (result i64) (local $app i32)
    (if (i32.and (i32.load8_u (i32.const 1070)) (i32.const 1)) ;; redirected by this callout: 1 or 3
      (then (return (call $because (i32.const 1) (i32.const 512) (i32.const 26)))))
    (if (i32.ne (i32.load8_u (i32.const 1065)) (i32.const 6)) (then (return (i64.const 1))))       ;; TCP over IPv4,
    (if (i64.ne (i64.load (i32.const 1088)) (i64.const 0)) (then (return (i64.const 1))))          ;; which ::ffff:a.b.c.d
    (if (i32.ne (i32.load (i32.const 1096)) (i32.const 0xffff0000)) (then (return (i64.const 1)))) ;; of a dual-stack socket is too
    (if (i32.ne (i32.load16_u (i32.const 1068)) (i32.const 443)) (then (return (i64.const 1))))
    (if (i32.lt_u (i32.load (i32.const 1108)) (i32.const 9)) (then (return (i64.const 1))))
    (local.set $app (i32.add (i32.const 1024) (i32.load (i32.const 1104))))
    (if (i64.ne (i64.load (local.get $app)) (i64.const 0x6e69622f7273752f)) (then (return (i64.const 1)))) ;; /usr/bin
    (if (i32.ne (i32.load8_u offset=8 (local.get $app)) (i32.const 0x2f)) (then (return (i64.const 1))))  ;; /
    (if (call $listed (call $swap (i32.load (i32.const 1100)))) (then (return (i64.const 1))))
    (i32.store (i32.const 9216) (i32.const 3))
    (i32.store16 (i32.const 9224) (global.get $port))
    (i32.store8 (i32.const 9226) (i32.const 4))
    (i32.store (i32.const 9228) (global.get $pid))
    (i64.store (i32.const 9240) (i64.const 0x0100007fffff0000)) ;; 127.0.0.1
    (i32.store (i32.const 9248) (i32.const 48))
    (i32.store (i32.const 9256) (i32.const 8256))
    ;; the record: what is to be known when the proxy's own connection is decided
    (i32.store (i32.const 9280) (i32.const 0x314c5053)) ;; SPL1
    (i64.store (i32.const 9284) (i64.load (i32.const 1088)))
    (i64.store (i32.const 9292) (i64.load (i32.const 1096)))
    (i32.store16 (i32.const 9300) (i32.load16_u (i32.const 1068)))
    (i32.store8 (i32.const 9302) (i32.const 6))
    (i32.store8 (i32.const 9303) (i32.load8_u (i32.const 1064)))
    (i32.store (i32.const 9304) (i32.load (i32.const 1056)))
    (i64.store (i32.const 9308) (i64.const 0))
    (i32.store (i32.const 9316) (i32.const 0))
    (i64.store (i32.const 9320) (i64.load (i32.const 1040)))
    (i64.or (i64.const 0x3000000003) (i64.shl (i64.extend_i32_u (global.get $port)) (i64.const 16))))

  (func $digit (result i32)
    (i32.and (i32.lt_u (global.get $at) (global.get $last))
      (i32.lt_u (i32.sub (i32.load8_u (global.get $at)) (i32.const 48)) (i32.const 10))))
  (func $step (global.set $at (i32.add (global.get $at) (i32.const 1))))
  ;; goes to the next digit, and says whether there is one
  (func $more (result i32)
    (loop $l
      (if (i32.and (i32.lt_u (global.get $at) (global.get $last)) (i32.eqz (call $digit)))
        (then (call $step) (br $l))))
    (i32.lt_u (global.get $at) (global.get $last)))
  ;; reads a number, -1 if there is none up to the limit
  (func $number (param $max i64) (result i64) (local $n i64)
    (if (i32.eqz (call $more)) (then (return (i64.const -1))))
    (loop $l
      (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10))
        (i64.sub (i64.load8_u (global.get $at)) (i64.const 48))))
      (if (i64.gt_s (local.get $n) (local.get $max)) (then (return (i64.const -1))))
      (call $step)
      (br_if $l (call $digit)))
    (local.get $n))
  ;; reads a network; 0 if it is none
  (func $network (result i32) (local $net i32) (local $n i64) (local $i i32) (local $mask i32)
    (loop $l
      (local.set $n (call $number (i64.const 255)))
      (if (i64.lt_s (local.get $n) (i64.const 0)) (then (return (i32.const 0))))
      (local.set $net (i32.or (i32.shl (local.get $net) (i32.const 8)) (i32.wrap_i64 (local.get $n))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 4))))
    (local.set $n (call $number (i64.const 32)))
    (if (i64.lt_s (local.get $n) (i64.const 0)) (then (return (i32.const 0))))
    (local.set $mask (i32.wrap_i64 (i64.shl (i64.const -1) (i64.sub (i64.const 32) (local.get $n)))))
    (i32.store offset=4 (global.get $end) (local.get $mask))
    (i32.store (global.get $end) (i32.and (local.get $net) (local.get $mask)))
    (global.set $end (i32.add (global.get $end) (i32.const 8)))
    (i32.const 1))

  (func $refuse (param $text i32) (param $len i32) (result i32)
    (memory.fill (i32.const 9216) (i32.const 0) (i32.const 64))
    (drop (call $because (i32.const 0xffff) (local.get $text) (local.get $len)))
    (i32.const -1))

  (func (export "callout_init") (param $n i32) (result i32)
    (if (i32.gt_u (local.get $n) (i32.const 8192)) ;; more follows
      (then (return (call $refuse (i32.const 640) (i32.const 35)))))
    (global.set $at (i32.const 1024))
    (global.set $last (i32.add (i32.const 1024) (local.get $n)))
    (global.set $end (i32.const 32768))
    (global.set $port (i32.wrap_i64 (call $number (i64.const 65535))))
    (global.set $pid (i32.wrap_i64 (call $number (i64.const 0x7fffffff))))
    (if (i32.or (i32.lt_s (global.get $port) (i32.const 0)) (i32.le_s (global.get $pid) (i32.const 0)))
      (then (return (call $refuse (i32.const 544) (i32.const 37)))))
    (block $done (loop $l
      (br_if $done (i32.eqz (call $more)))
      (br_if $l (call $network))
      (return (call $refuse (i32.const 592) (i32.const 37)))))
    (i32.const 0)))
