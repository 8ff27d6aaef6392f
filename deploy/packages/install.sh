#!/bin/bash
# Installs what is built, as "make install" and for packages.
#
#   install.sh PROGRAMS PAGES
#
# PROGRAMS has the programs to install, PAGES the man pages. PREFIX (/usr/local)
# is where they belong, DESTDIR is put before it. Completions are printed by the
# programs in HOST_BIN, if those to install are for another machine.
set -euo pipefail
programs=$(realpath "${1:?usage: install.sh PROGRAMS PAGES}") pages=$(realpath "${2:?usage: install.sh PROGRAMS PAGES}")
host=$(realpath "${HOST_BIN:-$programs}")
prefix=${PREFIX-/usr/local}
to=${DESTDIR:-}$prefix
cd "$(dirname "$0")/../.."

put() { # MODE FILE TO
	install -D -m "$1" "$2" "$3"
}

put 755 "$programs/poemq-launch" "$to/bin/poemq-launch"
put 755 "$programs/poemqctl" "$to/bin/poemqctl"
put 755 "$programs/poemqd" "$to/sbin/poemqd"
for library in "$programs"/libpoemq*.so; do # the hook library and its loader, where built
	[ ! -e "$library" ] || put 644 "$library" "$to/lib/poemq/${library##*/}"
done

for page in "$pages"/*.[1-8]; do
	put 644 "$page" "$to/share/man/man${page##*.}/${page##*/}"
	gzip -9nf "$to/share/man/man${page##*.}/${page##*/}"
done

bash=$to/share/bash-completion/completions zsh=$to/share/zsh/site-functions fish=$to/share/fish/vendor_completions.d
mkdir -p "$bash" "$zsh" "$fish"
for program in poemqd poemqctl; do
	"$host/$program" completion bash >"$bash/$program"
	"$host/$program" completion zsh >"$zsh/_$program"
	"$host/$program" completion fish >"$fish/$program.fish"
done
put 644 deploy/completions/poemq-launch.bash "$bash/poemq-launch"
put 644 deploy/completions/_poemq-launch "$zsh/_poemq-launch"
put 644 deploy/completions/poemq-launch.fish "$fish/poemq-launch.fish"

put 644 broker/config/poemq.toml "$to/share/poemq/poemq.toml"
for file in README.md docs/*.md; do
	put 644 "$file" "$to/share/doc/poemq/$file"
done
for file in deploy/container/*; do
	put 644 "$file" "$to/share/poemq/container/${file##*/}"
done

for file in deploy/grafana/*; do
	[ ! -e "$file" ] || put 644 "$file" "$to/share/poemq/grafana/${file##*/}"
done

# Units name the programs with their place.
units=deploy/systemd
unit() { # FILE TO
	put 644 "$1" "$2"
	sed -i "s|/usr/sbin/poemqd|$prefix/sbin/poemqd|g; s|/usr/bin/poemq|$prefix/bin/poemq|g" "$2"
}
for file in "$units"/*.service "$units"/*.socket; do
	[ ! -e "$file" ] || unit "$file" "$to/lib/systemd/system/${file##*/}"
done
for file in "$units"/user/*; do
	[ ! -e "$file" ] || unit "$file" "$to/lib/systemd/user/${file##*/}"
done
[ ! -e "$units/poemq.sysusers" ] || put 644 "$units/poemq.sysusers" "$to/lib/sysusers.d/poemq.conf"
[ ! -e "$units/poemq.tmpfiles" ] || put 644 "$units/poemq.tmpfiles" "$to/lib/tmpfiles.d/poemq.conf"
[ ! -e "$units/60-poemq.conf" ] || put 644 "$units/60-poemq.conf" "$to/lib/sysctl.d/60-poemq.conf"
