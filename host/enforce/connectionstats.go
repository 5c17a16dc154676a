package enforce

// ConnectionStats are the figures of the connections that a backend carries.
type ConnectionStats struct {
	Open    int64  `json:"open"`    // that there are
	Max     int64  `json:"max"`     // that there may be
	Carried uint64 `json:"carried"` // that reached where they may go, in all
	// Refused are those that did not, and flows of datagrams, in all, by the reason:
	// RefusedByPolicy and so on.
	Refused map[string]uint64 `json:"refused"`
}

// Why connections are refused.
const (
	RefusedByPolicy       = "policy"
	RefusedForConnections = "connections" // there are as many as may be, or of one as are left for others
	RefusedForDescriptors = "descriptors" // this process has no more
	RefusedUnreached      = "unreached"   // where it may go, or its proxy, was not reached
)
