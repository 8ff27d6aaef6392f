// Package apps proves poemq with the programs people run: each test starts a
// server and its clients under poemq-launch, has them do real work that a
// checksum or a count verifies, and then asks the wire (test/rig).
//
// One file per program or family. `make test-apps` installs their Debian
// packages (scripts/deps-apps.sh) and runs them.
package apps
