// Package profile makes seccomp profiles for container engines that hand a
// container's socket calls to the broker: the agent's way, without poemq-launch
// in the image.
//
// # Theory of operation
//
// What comes in is the engine's own profile (Docker's default one, unless
// another is given) and the rules of package filter. What goes out is a profile
// that refuses what the first one refuses, and answers each call that it allows
// as the launcher's filter would: handed to the broker, refused, or allowed.
//
// libseccomp, from which runc and crun make the filter, has no order among rules:
// an "allow" beside a "notify" for the same call would be ambiguous. So the calls
// of our rules are taken out of the engine's lists, and come back as a partition
// (cells.go): for every value of the arguments exactly one rule matches. "Any
// other value" is said in masks, each bit of which is compared.
//
// A test makes BPF of the profile as runc does, and compares its answers with
// those of the launcher's filter.
//
// # Limits
//
//   - 32-bit programs may hide a call's arguments behind a pointer (i386's
//     socketcall(2)), and a profile cannot have rules for one architecture alone.
//     So the profile is for 64-bit programs; a 32-bit program's calls are refused.
//   - Conditions that the base profile has on our calls may be on the first
//     argument of socket(2) alone; others are an error and never dropped.
package profile
