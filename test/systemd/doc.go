// Package systemd boots a Debian with systemd in a container of its own
// (systemd-nspawn) and runs poemq there as an administrator would: its units,
// real services put under poemq, restarts, crashes, draining, the journal.
package systemd
