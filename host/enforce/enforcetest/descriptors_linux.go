package enforcetest

import "syscall"

// WithoutDescriptors lets this process have no more descriptors than it has, until the
// function that it returns is called. What it starts meanwhile has the same limit.
func WithoutDescriptors() (restore func()) {
	var old syscall.Rlimit
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max})) // Those that are open stay.
	return func() { must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) }
}
