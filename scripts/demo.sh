#!/bin/bash
# Shows poemq's main job on loopback: unmodified nc, telnet, curl and iperf3 talk
# over QUIC. Ends by itself; the exit status is 0 only if everything worked and
# not one TCP segment was seen.
#
#   demo.sh DIRECTORY-WITH-THE-BINARIES
#
# POEMQ_TEST_NATIVE=1 runs the programs on plain TCP and expects just that, to
# try this script.
set -euo pipefail

bin=${1:?usage: demo.sh DIRECTORY}
export LC_ALL=C
work=$(mktemp -d)
last=0           # pid of the program started last
dumps=()         # pids of the captures
failed=0

carrier=udp other=tcp
launch=("$bin/poemq-launch" --broker "$work/none" --)
if [ "${POEMQ_TEST_NATIVE:-}" = 1 ]; then
	carrier=tcp other=udp launch=()
fi
# The demonstration's own keys and pins.
export POEMQ_STATE_DIR=$work/state
mkdir -m 700 "$POEMQ_STATE_DIR"

root=()
[ "$(id -u)" = 0 ] || root=(sudo)

end() {
	local pid
	for pid in $(jobs -pr); do # our own that still run
		kill "$pid" 2>/dev/null || "${root[@]}" kill "$pid" || true
	done
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

bold='' plain=''
if [ -t 1 ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
shown() { printf '  $ %s\n' "$*"; }
fail() {
	printf '  FAILED: %s\n' "$*"
	failed=1
}
give_up() {
	printf '\nFAILED: %s\n' "$*"
	local log
	for log in "$work"/*.err; do
		[ -s "$log" ] && sed "s|^|  ${log##*/}: |" "$log" | tail -n 5
	done
	exit 1
}

# within SECONDS COMMAND…: waits until the command succeeds.
within() {
	local until=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $until ] || return 1
		read -rt 0.05 <> <(:) || true # a pause without a process
	done
}

# taken PORT PROTOCOL: somebody holds the port.
taken() {
	local hex
	hex=$(printf ':%04X ' "$1")
	cat "/proc/net/$2" "/proc/net/${2}6" 2>/dev/null | awk '{print $2 " "}' | grep -q "$hex"
}

free_port() {
	local port
	while :; do
		port=$((15000 + RANDOM % 15000))
		if ! taken $port tcp && ! taken $port udp; then
			echo $port
			return
		fi
	done
}

# run NAME COMMAND…: starts a program through poemq in the background, with
# standard input from this function's and output to $work/NAME.{out,err}.
run() {
	local name=$1
	shift
	"${launch[@]}" "$@" <&0 >"$work/$name.out" 2>"$work/$name.err" &
	last=$!
}

said() { grep -q -- "$2" "$work/$1.out"; }
quote() { sed 's/^/  | /' "$1"; }
# gone PID: it has ended.
gone() { ! kill -0 "$1" 2>/dev/null; }

# capture PROTOCOL: counts packets of the demonstration's ports.
capture() {
	# -Q in: on lo each packet goes out and comes in. -s: headers are enough.
	"${root[@]}" tcpdump -i lo -Q in -n -s 80 -B 16384 -Z root -U -w "$work/$1.pcap" \
		"$1 and (port $talk_port or port $web_port or port $up_port or port $down_port)" \
		2>"$work/tcpdump-$1.err" &
	dumps+=($!)
	within 10 grep -q 'listening on' "$work/tcpdump-$1.err" || give_up "tcpdump does not start"
}

packets() {
	tcpdump -n -r "$work/$1.pcap" "port $2" 2>/dev/null | wc -l
}

[ ${#launch[@]} = 0 ] || [ -x "${launch[0]}" ] || give_up "no poemq-launch in $bin: run make build"
talk_port=$(free_port)
web_port=$(free_port)
up_port=$(free_port)
down_port=$(free_port)
capture tcp
capture udp

title "1. nc and telnet talk (port $talk_port)"
shown "poemq-launch -- nc -N -l 127.0.0.1 $talk_port"
shown "poemq-launch -- telnet 127.0.0.1 $talk_port"
mkfifo "$work/to-nc" "$work/to-telnet"
exec 7<>"$work/to-nc" 8<>"$work/to-telnet"
run nc nc -N -l 127.0.0.1 "$talk_port" <"$work/to-nc" 7>&- 8>&-
nc_pid=$last
within 15 taken "$talk_port" $carrier || give_up "nc does not listen"
run telnet telnet 127.0.0.1 "$talk_port" <"$work/to-telnet" 7>&- 8>&-
telnet_pid=$last
within 15 said telnet Connected || give_up "telnet does not connect"
echo "Good morning, this is telnet." >&8
within 10 said nc telnet || fail "nc hears nothing"
echo "Good morning, this is nc." >&7
within 10 said telnet 'is nc' || fail "telnet hears nothing"
exec 7>&-
within 10 gone "$nc_pid" || fail "nc does not end"
exec 8>&-
within 10 gone "$telnet_pid" || fail "telnet does not end"
echo "  nc heard:"
quote "$work/nc.out"
echo "  telnet heard:"
quote "$work/telnet.out"

title "2. curl fetches from nc (port $web_port)"
shown "poemq-launch -- nc -N -l 127.0.0.1 $web_port < response"
shown "poemq-launch -- curl http://127.0.0.1:$web_port/"
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 28\r\n\r\nHello, this came over QUIC.\n' >"$work/response"
run web nc -N -l 127.0.0.1 "$web_port" <"$work/response"
within 15 taken "$web_port" $carrier || give_up "nc does not listen"
run curl curl -sS --max-time 20 --noproxy '*' "http://127.0.0.1:$web_port/" </dev/null
wait "$last" || fail "curl ends with status $?"
echo "  nc got:"
tr -d '\r' <"$work/web.out" | sed '/^$/d; s/^/  | /'
echo "  curl got:"
quote "$work/curl.out"
grep -q '^Hello, this came' "$work/curl.out" || fail "curl got something else"

# iperf NAME PORT FLAGS…: three seconds.
iperf() {
	local name=$1 port=$2 rate server
	shift 2
	run iperf-server iperf3 -s -1 -p "$port" </dev/null
	server=$last
	within 15 taken "$port" $carrier || give_up "iperf3 does not listen"
	shown "poemq-launch -- iperf3 -c 127.0.0.1 -p $port -t 3 $*"
	run iperf iperf3 -c 127.0.0.1 -p "$port" -t 3 -f m "$@" </dev/null
	wait "$last" || fail "iperf3 ends with status $?"
	wait "$server" || fail "the iperf3 server ends with status $?"
	rate=$(awk '$NF == "receiver" { for (i = 1; i < NF; i++) if ($i ~ /bits\/sec/) print $(i-1) }' "$work/iperf.out")
	printf '  %s: %s Mbit/s\n' "$name" "${rate:-nothing}"
	case ${rate:-0} in
	0 | 0.* | -*) fail "no throughput" ;;
	esac
}

title "3. iperf3, three seconds each way (ports $up_port and $down_port)"
iperf "client to server" "$up_port"
iperf "server to client" "$down_port" -R

for pid in "${dumps[@]}"; do
	"${root[@]}" kill -INT "$pid"
	wait "$pid" || true
done
title "4. What was on the wire"
printf '  %-8s %12s %14s\n' port 'UDP packets' 'TCP segments'
for port in $talk_port $web_port $up_port $down_port; do
	udp=$(packets udp "$port") tcp=$(packets tcp "$port")
	printf '  %-8s %12s %14s\n' "$port" "$udp" "$tcp"
	[ $carrier = udp ] || { swap=$udp udp=$tcp tcp=$swap; }
	[ "$udp" -gt 0 ] || fail "port $port: no ${carrier^^} packet"
	[ "$tcp" -eq 0 ] || fail "port $port: ${other^^} was seen"
done

if [ $failed = 0 ]; then
	title "All of it over QUIC: not one TCP segment."
	[ $carrier = udp ] || echo "(No: this was plain TCP, POEMQ_TEST_NATIVE=1.)"
else
	give_up "see above"
fi
