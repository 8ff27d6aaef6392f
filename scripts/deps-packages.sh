#!/bin/sh
# Installs the Debian packages that make and test poemq's own packages: a command
# that must exist, then the package that brings it. --list prints what is missing
# and installs nothing.
set -eu

"$(dirname "$0")/deps-list.sh" deps-packages "$@" <<LIST
aarch64-linux-gnu-gcc           gcc-aarch64-linux-gnu
debootstrap                     debootstrap
qemu-aarch64-static             qemu-user-static
qemu-system-aarch64             qemu-system-arm
rpm                             rpm
busybox                         busybox-static
/usr/aarch64-linux-gnu/lib/libc.a libc6-dev-arm64-cross
LIST
