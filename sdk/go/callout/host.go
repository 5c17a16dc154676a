package callout

import (
	"fmt"
	"strings"
	"time"

	"github.com/calloutd/calloutd/sdk/abi"
)

// A HostError is an error of a function of the host.
type HostError int32

// The errors of the host's functions.
const (
	ErrDenied      HostError = abi.ErrDenied
	ErrPointer     HostError = abi.ErrPointer
	ErrNotFound    HostError = abi.ErrNotFound
	ErrTooLarge    HostError = abi.ErrTooLarge
	ErrFull        HostError = abi.ErrFull
	ErrUnsupported HostError = abi.ErrUnsupported
)

func (e HostError) Error() string {
	switch e {
	case ErrDenied:
		return "the host did not grant this capability"
	case ErrPointer:
		return "outside the memory"
	case ErrNotFound:
		return "not found"
	case ErrTooLarge:
		return "too large"
	case ErrFull:
		return "no room"
	case ErrUnsupported:
		return "not possible now"
	}
	return fmt.Sprintf("host error %d", int32(e))
}

// A Host is what the host offers. Tests put one of their own in place of System.
type Host interface {
	Log(level int32, text string) int32
	Random(b []byte) int32
	Wall() int64
	KVGet(key, buf []byte) int32
	KVSet(key, value []byte, ttl int32) int32
	KVDel(key []byte) int32
	MetricAdd(name string, delta int64) int32
	CIDRMatch(set int32) int32
	TableLookup(table int32) int32
	DNSNames(buf []byte) int32
}

// System is the host: in a module the real one, else one that can do nothing.
var System Host = system{}

func result(n int32) (int, error) {
	if n < 0 {
		return 0, HostError(n)
	}
	return int(n), nil
}

func failure(n int32) error {
	_, err := result(n)
	return err
}

// Levels of Log.
const (
	Debug int32 = iota
	Info
	Warning
	Failure
)

// Log writes a line to the host's log, at a limited rate (CapLog).
func Log(level int32, format string, args ...any) error {
	return failure(System.Log(level, fmt.Sprintf(format, args...)))
}

// Random fills b (CapRandom).
func Random(b []byte) error { return failure(System.Random(b)) }

// Wall is the time (CapWall).
func Wall() (time.Time, error) {
	n := System.Wall()
	if n < 0 {
		return time.Time{}, HostError(n)
	}
	return time.Unix(0, n), nil
}

// Get reads a value of the store, which all instances share, into buf (CapKV).
func Get(key, buf []byte) ([]byte, error) {
	n, err := result(System.KVGet(key, buf))
	return buf[:n], err
}

// Set writes a value that lasts for ttl, in whole seconds, or until it is deleted
// if ttl is zero (CapKV).
func Set(key, value []byte, ttl time.Duration) error {
	return failure(System.KVSet(key, value, int32(ttl/time.Second)))
}

// Delete deletes a value (CapKV).
func Delete(key []byte) error { return failure(System.KVDel(key)) }

// Add adds to a counter of the callout (CapMetric).
func Add(name string, delta int64) error { return failure(System.MetricAdd(name, delta)) }

// InSet reports whether the remote address is in a set of the policy (CapSets).
func InSet(set int) (bool, error) {
	n, err := result(System.CIDRMatch(int32(set)))
	return n != 0, err
}

// Lookup is the value of the longest prefix of a table that holds the remote
// address (CapTables).
func Lookup(table int) (int, error) { return result(System.TableLookup(int32(table))) }

var names [4096]byte

// Names are the names that the host saw resolve to the remote address (CapNames).
func Names() ([]string, error) {
	n, err := result(System.DNSNames(names[:]))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00"), nil
}
