package callout

import "unsafe"

//go:wasmimport callout log
func hostLog(level int32, text unsafe.Pointer, n int32) int32

//go:wasmimport callout random
func hostRandom(buf unsafe.Pointer, n int32) int32

//go:wasmimport callout wall
func hostWall() int64

//go:wasmimport callout kv_get
func hostGet(key unsafe.Pointer, klen int32, buf unsafe.Pointer, n int32) int32

//go:wasmimport callout kv_set
func hostSet(key unsafe.Pointer, klen int32, value unsafe.Pointer, vlen, ttl int32) int32

//go:wasmimport callout kv_del
func hostDel(key unsafe.Pointer, klen int32) int32

//go:wasmimport callout metric_add
func hostAdd(name unsafe.Pointer, n int32, delta int64) int32

//go:wasmimport callout cidr_match
func hostMatch(set int32) int32

//go:wasmimport callout table_lookup
func hostLookup(table int32) int32

//go:wasmimport callout dns_names
func hostNames(buf unsafe.Pointer, n int32) int32

type system struct{}

func at(b []byte) (unsafe.Pointer, int32) { return unsafe.Pointer(unsafe.SliceData(b)), int32(len(b)) }

func (system) Log(level int32, s string) int32 {
	return hostLog(level, unsafe.Pointer(unsafe.StringData(s)), int32(len(s)))
}
func (system) Random(b []byte) int32 { p, n := at(b); return hostRandom(p, n) }
func (system) Wall() int64           { return hostWall() }
func (system) KVGet(key, buf []byte) int32 {
	k, kn := at(key)
	b, bn := at(buf)
	return hostGet(k, kn, b, bn)
}
func (system) KVSet(key, value []byte, ttl int32) int32 {
	k, kn := at(key)
	v, vn := at(value)
	return hostSet(k, kn, v, vn, ttl)
}
func (system) KVDel(key []byte) int32 { k, n := at(key); return hostDel(k, n) }
func (system) MetricAdd(name string, delta int64) int32 {
	return hostAdd(unsafe.Pointer(unsafe.StringData(name)), int32(len(name)), delta)
}
func (system) CIDRMatch(set int32) int32     { return hostMatch(set) }
func (system) TableLookup(table int32) int32 { return hostLookup(table) }
func (system) DNSNames(buf []byte) int32     { b, n := at(buf); return hostNames(b, n) }
