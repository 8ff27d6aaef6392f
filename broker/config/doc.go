// Package config is the configuration of poemqd.
//
// Layers, each of which stands above the one before:
//
//	poemq.toml of this package          every key with its default and meaning
//	/etc/poemq/poemq.toml               or the file that --config names
//	/etc/poemq/poemq.d/*.toml           sorted by name; FILE.toml has FILE.d
//	POEMQ_SECTION_KEY                   the environment
//	--state-dir, --log-level, …         flags
//
// A single value of a later layer takes the place of an earlier one. Tables in
// a list ([[rule]] and so on) add up, in the order in which they are read.
//
// Every value is checked where it is read, and an error names the file and the
// line, what is wrong and what is allowed. All errors are found in one go.
//
//	config.go   what comes out: Config
//	keys.go     the table of single keys; value.go how their text is read
//	lists.go    the tables in lists
//	toml.go     a file as keys and values with their lines
//	load.go     layers and sources
//	print.go    the effective configuration as a file
//	change.go   what a reload changes, and what waits for a restart
//	unused.go   what the schema has and this version does not do yet
package config
