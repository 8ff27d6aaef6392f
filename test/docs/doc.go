// Package docs runs the commands in README.md and docs.
//
// A fenced block marked "console" is run. A line "$ COMMAND" is run on a host of
// its own; "a$ COMMAND" and "b$ COMMAND" on two hosts that are joined by a cable
// and know each other as a.example (192.0.2.1) and b.example (192.0.2.2). A
// command that ends in "&" goes on in the background; the next one begins when
// the port that it names is served. The lines below a command are what it prints;
// "…" stands for anything. Everything up to the next heading happens on the same
// hosts; the files in their directories stay for the whole page.
//
// A host is a set of namespaces with /etc, /var/lib and /run laid over those of
// the machine, and the programs from POEMQ_BIN. There, sudo only runs its
// command, and scp copies to the other host.
//
// A command in any other block, fenced or indented, fails the test, unless the
// file not-run lists it with the reason. An entry there that fits no command
// fails, too. Commands of ours within a line of text are held to --help.
package docs
