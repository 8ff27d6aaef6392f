// Package api is what poemqd tells and takes over its control socket: the types
// of every request and answer, and a client. docs/api.md describes it for those
// who speak to the socket themselves; package control serves it.
//
// Field names are stable: one is added, never renamed or taken away, within v1.
// Times are RFC 3339, durations float64 in the unit their name ends with, sizes
// octets. An address that is not known is "".
package api
