package ntstatus

// Parse returns the status of a name such as STATUS_NOT_FOUND.
func Parse(name string) (Status, bool) {
	for s, n := range names {
		if n == name {
			return s, true
		}
	}
	return 0, false
}
