// Package descriptors looks, before other packages begin, whether this process has enough of
// them to begin.
package descriptors
