#!/bin/sh
# Installs the Debian packages that make and test man pages and completions: a
# command that must exist, then the package that brings it. --list prints what is
# missing and installs nothing.
set -eu

"$(dirname "$0")/deps-list.sh" deps-man "$@" <<LIST
fish   fish
man    man-db
scdoc  scdoc
zsh    zsh
LIST
