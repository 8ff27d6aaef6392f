# fish completion for poemq-launch(1).
function __poemq_launch_command
	set -l tokens (commandline -opc) (commandline -ct)
	set -e tokens[1]
	argparse -s argv0= keeper broker= quic= on-broker-missing= poemqd= match= via= zpoline-loader= version h/help -- $tokens 2>/dev/null
	or return
	complete -C "$argv"
end
complete -c poemq-launch -l broker -r -F -d 'Socket of the broker'
complete -c poemq-launch -l quic -x -a 'require prefer off' -d 'What QUIC is wanted for'
complete -c poemq-launch -l on-broker-missing -x -a 'embedded fail plain' -d 'What to do without a broker'
complete -c poemq-launch -l poemqd -r -F -d 'Program for a private broker'
complete -c poemq-launch -l argv0 -x -d 'Name that the command finds as its own'
complete -c poemq-launch -l keeper -d 'Keep the session when the broker ends'
complete -c poemq-launch -l via -x -a 'seccomp zpoline auto' -d 'How calls are caught'
complete -c poemq-launch -l zpoline-loader -r -F -d 'Loader for --via zpoline'
complete -c poemq-launch -l match -x -a 'inet,stream,tcp inet6,stream,tcp' -d 'Sockets to carry'
complete -c poemq-launch -l version -d 'Print the version and exit'
complete -c poemq-launch -s h -l help -d 'Print help and exit'
# What follows is the command's own line.
complete -c poemq-launch -x -a '(__poemq_launch_command)'
