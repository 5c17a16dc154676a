//go:build !linux

package wsk_test

func acceptWithoutDescriptors() {}
