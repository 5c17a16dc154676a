//go:build !linux

package enforce

// Probe asks the running kernel, not its version number, what it can enforce.
func Probe() []Capability {
	cs := capabilities()
	for i := range cs {
		cs[i].Why = "only Linux has it"
	}
	return cs
}

func remedy(string, error) string { return "" }

// System says which kernel runs, and as whom this process runs; empty: unknown.
func System() string { return "" }
