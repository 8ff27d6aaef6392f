#!/bin/bash
# Vets, lints and checks the format of everything; the tools are those of
# tools/go.mod, built into the directory given.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${1:?usage: lint.sh DIRECTORY}
go=${GO:-go}

# On a machine without a module cache the commands below would tell of what they
# download, which would pass for a finding.
"$go" mod download
# nfpm is for packages only, and large.
GOBIN=$tools "$go" install -C tools honnef.co/go/tools/cmd/staticcheck mvdan.cc/gofumpt

failed=0
check() {
	local name=$1
	shift
	local said
	if said=$("$@" 2>&1) && [ -z "$said" ]; then
		echo "lint: $name: ok"
	else
		printf 'lint: %s:\n%s\n' "$name" "$said"
		failed=1
	fi
}

mapfile -t shells < <(find scripts .ci test deploy -name '*.sh' -o -path .ci/run 2>/dev/null)

check "go vet" "$go" vet ./...
check staticcheck "$tools/staticcheck" ./...
check gofumpt "$tools/gofumpt" -l .
if command -v shellcheck >/dev/null; then
	check shellcheck shellcheck "${shells[@]}"
else
	echo "lint: shellcheck: skipped, it is not installed"
fi
exit $failed
