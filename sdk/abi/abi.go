// Package abi is the guest ABI "callout v1" as numbers: the layout that host
// and guests share. It imports nothing, so guests can. ABI.md is the same as
// text; both are made from abi.yaml.
package abi

//go:generate go run gen.go
