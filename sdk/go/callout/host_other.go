//go:build !wasip1

package callout

import "github.com/calloutd/calloutd/sdk/abi"

// system is no host: natively there is none.
type system struct{}

func (system) Log(int32, string) int32          { return abi.ErrUnsupported }
func (system) Random([]byte) int32              { return abi.ErrUnsupported }
func (system) Wall() int64                      { return abi.ErrUnsupported }
func (system) KVGet(_, _ []byte) int32          { return abi.ErrUnsupported }
func (system) KVSet(_, _ []byte, _ int32) int32 { return abi.ErrUnsupported }
func (system) KVDel([]byte) int32               { return abi.ErrUnsupported }
func (system) MetricAdd(string, int64) int32    { return abi.ErrUnsupported }
func (system) CIDRMatch(int32) int32            { return abi.ErrUnsupported }
func (system) TableLookup(int32) int32          { return abi.ErrUnsupported }
func (system) DNSNames([]byte) int32            { return abi.ErrUnsupported }
