#!/bin/bash
# Makes the packages of one architecture in dist: .deb, .rpm and a tarball.
#
#   build.sh ARCH PROGRAMS PAGES NFPM
#
# ARCH is amd64 or arm64. VERSION is what the packages are called; by default the
# VERSION file's, and the commit if that is not a release.
set -euo pipefail
arch=${1:?usage: build.sh ARCH PROGRAMS PAGES NFPM} programs=$2 pages=$3 nfpm=$4
cd "$(dirname "$0")/../.."

version=${VERSION:-}
if [ -z "$version" ]; then
	version=$(cat VERSION)
	case $version in
	# ~ sorts before the release that it leads to.
	*-dev) version=${version%-dev}~git$(git log -1 --format=%cd.%h --date=format:%Y%m%d%H%M%S 2>/dev/null || date +%Y%m%d) ;;
	esac
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p dist

DESTDIR=$work/tree PREFIX=/usr deploy/packages/install.sh "$programs" "$pages"
sed "s|@ARCH@|$arch|; s|@VERSION@|$version|; s|@TREE@|$work/tree|" deploy/packages/nfpm.yaml >"$work/nfpm.yaml"
for kind in deb rpm; do
	"$nfpm" package --config "$work/nfpm.yaml" --packager "$kind" --target dist/ >/dev/null
done

# The tarball runs where it is unpacked, in /usr/local too.
name=poemq-$version-linux-$arch
DESTDIR=$work/$name PREFIX='' deploy/packages/install.sh "$programs" "$pages"
# Units in there would name programs at the top of the file system.
rm -rf "$work/$name/lib/systemd" "$work/$name/lib/sysusers.d" "$work/$name/lib/tmpfiles.d" "$work/$name/lib/sysctl.d"
rmdir "$work/$name/lib" 2>/dev/null || true
tar -C "$work" --owner=0 --group=0 --sort=name -czf "dist/$name.tar.gz" "$name"
