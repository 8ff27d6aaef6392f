// Package policy decides how a destination is reached and what a listening
// port serves.
//
// In go rules, each of which says whom it is about and what is done; out comes
// a Decision for each connect and listen. The first rule that matches is the
// one that counts. The word of a rule is the administrator's: it stands above
// what a session asks for itself, which stands above the default.
//
//	rule.go     a rule and its parts, parsed and checked
//	policy.go   a set of rules, made ready to decide by
//	resolve.go  the addresses of host names in rules
//
// Decide never waits: host names are looked up in the background, and a
// program's cgroup is read only when a rule that matches so far asks for it.
package policy
