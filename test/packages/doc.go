// Package packages installs, upgrades and removes poemq's packages in a small
// Debian of their own (scripts/debroot.sh), runs the tarballs, and holds man
// pages and completions to the programs' own --help.
//
// "make test-packages" builds what is tested, in dist.
package packages
