// Package race tells tests whether the race detector is on: under it sync.Pool
// forgets at random, and everything takes longer.
package race
