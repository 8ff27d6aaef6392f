#!/bin/bash
# Makes the man pages, by scdoc from *.scd here and the programs' own --help.
#
#   build.sh DIRECTORY-WITH-THE-PROGRAMS DIRECTORY-FOR-THE-PAGES
set -euo pipefail
bin=$(realpath "${1:?usage: build.sh BIN OUT}") out=$(realpath -m "${2:?usage: build.sh BIN OUT}")
cd "$(dirname "$0")/../.."
mkdir -p "$out"
go=${GO:-go}
# The date of the last change, so that the same source gives the same pages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
"$go" build -o "$out/.reference" ./deploy/man/reference
for page in deploy/man/*.scd; do
	to=$out/$(basename "$page" .scd)
	if ! "$out/.reference" "$bin" <"$page" >"$out/.page" || ! scdoc <"$out/.page" >"$to"; then
		echo "man: $page is not a page" >&2
		exit 1
	fi
done
rm -f "$out/.reference" "$out/.page"
