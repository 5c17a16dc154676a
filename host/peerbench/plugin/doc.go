// Package plugin is the interface of the knqyf263/go-plugin peer: what protoc
// makes of plugin.proto for the host and for the guest.
package plugin

//go:generate protoc --go-plugin_out=. --go-plugin_opt=paths=source_relative plugin.proto
