//go:build linux && (amd64 || arm64)

package bpf

// Object is the compiled programs, to tell versions apart.
func Object() []byte { return _RedirectBytes }
