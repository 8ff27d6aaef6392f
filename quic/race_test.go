//go:build race

package quic

// raceDetector is on in this build.
const raceDetector = true
