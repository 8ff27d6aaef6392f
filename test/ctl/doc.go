// Package ctl holds what an operator looks at to its word, with the built
// binaries: poemqctl and its JSON, top under a pseudo-terminal, doctor, the log's
// lines, the status page in a browser, and a broker with 10,000 sockets that is
// looked at all the time.
package ctl
