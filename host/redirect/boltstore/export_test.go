package boltstore

// Points are where the process can be ended.
var Points = []string{"put in memory", "batch written", "batch on disk", "file read", "rewrite begun", "rewrite half", "rewrite written", "rewrite renamed"}

// SetAt lets f be called at each point.
func SetAt(f func(point string)) { at = f }

// SetCompactFrom sets from which size on files are made smaller.
func SetCompactFrom(n int64) { compactFrom = n }
