package guest

// Unguarded makes o one for a guest that runs without fuel, as a floor for
// benchmarks.
func Unguarded(o ModuleOptions) ModuleOptions {
	o.unguarded = true
	return o
}
