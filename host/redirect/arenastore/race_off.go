//go:build !race

package arenastore

const raceDetector = false
