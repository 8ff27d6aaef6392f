// Package dropin writes what puts a systemd service under poemq: a drop-in file
// that starts its program through poemq-launch. In comes a Unit, as systemd shows
// it; out go the file's text and notes for who runs the service. The unit itself
// is never changed, and nothing here talks to systemd.
package dropin
