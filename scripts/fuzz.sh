#!/bin/bash
# Runs every fuzz target of the module for the time given, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh TIME}
go=${GO:-go}

found=0
while read -r file target; do
	found=1
	echo "fuzz: $target in ${file%/*}"
	"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./${file%/*}"
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . |
	sed -E 's|^\./([^:]+):func |\1 |')
[ "$found" = 1 ] || echo "fuzz: no targets"
