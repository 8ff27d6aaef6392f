# bash completion for poemq-launch(1): its own flags, then those of the command.
_poemq_launch()
{
	local i cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local with_value='--argv0 --broker --match --on-broker-missing --poemqd --quic --via --zpoline-loader'
	COMPREPLY=()
	# Behind the first word that is neither a flag nor a flag's value, and behind
	# --, all is the command's.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) _poemq_launch_command $((i + 1)) && return ;;
		-*=*) ;;
		-*) [[ " $with_value " != *" ${COMP_WORDS[i]} "* ]] || ((i++)) ;;
		=) ((i++)) ;; # bash splits at =
		*) _poemq_launch_command $i && return ;;
		esac
	done
	case $prev in
	--quic) mapfile -t COMPREPLY < <(compgen -W 'require prefer off' -- "$cur") && return ;;
	--on-broker-missing) mapfile -t COMPREPLY < <(compgen -W 'embedded fail plain' -- "$cur") && return ;;
	--via) mapfile -t COMPREPLY < <(compgen -W 'seccomp zpoline auto' -- "$cur") && return ;;
	--broker | --poemqd | --zpoline-loader) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$cur") && return ;;
	--match) mapfile -t COMPREPLY < <(compgen -W 'inet,stream,tcp inet6,stream,tcp' -- "$cur") && return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$with_value --keeper --help --version --" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
	fi
}

# _poemq_launch_command N: word N is the command.
_poemq_launch_command()
{
	if ((COMP_CWORD == $1)); then
		mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
	elif declare -F _command_offset >/dev/null; then # of the bash-completion package
		_command_offset "$1"
	else
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
	fi
	return 0
}

complete -F _poemq_launch poemq-launch
