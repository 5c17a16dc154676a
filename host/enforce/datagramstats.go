package enforce

// DatagramStats are the figures of the datagrams that a backend carries.
type DatagramStats struct {
	Flows    int64 `json:"flows"`     // that there are
	Bytes    int64 `json:"bytes"`     // of memory, that those take that wait
	MaxBytes int64 `json:"max_bytes"` // that they may take
	// Lost are those that were, by the reason: LostForMemory and so on.
	Lost map[string]uint64 `json:"lost"`
}

// Why datagrams get lost.
const (
	LostForMemory = "memory" // those that wait take MaxBytes
	LostForQueue  = "queue"  // too many of one flow wait
	LostForFlows  = "flows"  // there are too many
)
