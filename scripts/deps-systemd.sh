#!/bin/sh
# Installs the Debian packages that test/systemd boots a container with: a command
# that must exist, then the package that brings it. --list prints what is missing
# and installs nothing.
set -eu

"$(dirname "$0")/deps-list.sh" deps-systemd "$@" <<LIST
debootstrap        debootstrap
systemd-nspawn     systemd-container
LIST
