#!/bin/sh
# Installs the Debian packages with the container engines of test/container: a
# command that must exist, then the package that brings it. --list prints what is
# missing and installs nothing.
set -eu

"$(dirname "$0")/deps-list.sh" deps-container "$@" <<LIST
busybox         busybox-static
conmon          conmon
crun            crun
docker          docker.io
dockerd         docker.io
fuse-overlayfs  fuse-overlayfs
ip              iproute2
newuidmap       uidmap
nsenter         util-linux
podman          podman
runc            runc
slirp4netns     slirp4netns
tcpdump         tcpdump
LIST
