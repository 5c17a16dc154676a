// What the host offers. A policy asks for it with ask(). A result below zero is
// one of abi.ERR_*.

export { log, random, wall, kv_get, kv_set, kv_del, metric_add, cidr_match, table_lookup, dns_names };

@external("callout", "log")
declare function log(level: u32, text: usize, length: u32): i32;
@external("callout", "random")
declare function random(buf: usize, length: u32): i32;
@external("callout", "wall")
declare function wall(): i64;
@external("callout", "kv_get")
declare function kv_get(key: usize, keyLength: u32, buf: usize, capacity: u32): i32;
@external("callout", "kv_set")
declare function kv_set(key: usize, keyLength: u32, value: usize, valueLength: u32, ttl: u32): i32;
@external("callout", "kv_del")
declare function kv_del(key: usize, keyLength: u32): i32;
@external("callout", "metric_add")
declare function metric_add(name: usize, length: u32, delta: i64): i32;
@external("callout", "cidr_match")
declare function cidr_match(set: u32): i32;
@external("callout", "table_lookup")
declare function table_lookup(table: u32): i32;
@external("callout", "dns_names")
declare function dns_names(buf: usize, capacity: u32): i32;
