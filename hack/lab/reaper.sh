# Ends the processes that one run of the laboratory started, however this run ends.
#
#   sh -c "$(cat reaper.sh)" writ-lab-reaper RUN DIRECTORY
#
# Standard input is a pipe that only the laboratory's process holds. The process writes lines to it:
#
#   watch PID START   Registers a server. START is field 22 of /proc/PID/stat, so that a later process with the same
#                     number is not treated as this server.
#   keep              Keeps DIRECTORY, so that a user can read the logs.
#
# When the laboratory's process returns, panics or is killed, the kernel closes the pipe. Then this script ends the
# following processes, by TERM first and by KILL after about 3 s, and removes DIRECTORY:
#
#   - the registered servers, and their descendants;
#   - every process with WRIT_LAB_RUN=RUN in its environment. A command that started its own session is no descendant
#     any more, but it still has this environment.
set -u

run=$1
folder=$2
keep=no
# " PID:START PID:START ": every process of the run that was ever found. A process stays in this list after its parent
# ended and it became a child of init.
ours=' '

# Signals from the terminal may end the laboratory. This script ends only when the pipe is closed.
trap '' HUP INT QUIT TERM

# stat_of PID: sets parent and start. Fails if the process has ended or is a zombie.
stat_of() {
	{ read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
	# The name is in parentheses and may itself contain blanks and parentheses. So cut at the last one.
	# shellcheck disable=SC2086 # the text must be split into fields
	set -- ${line##*) }
	[ "$1" != Z ] || return 1
	parent=$2
	start=${20}
}

# gather: adds marked processes and descendants to $ours, and sets $alive to the pids that still run.
gather() {
	marked=' '
	# shellcheck disable=SC2013 # names in /proc have no blanks, and a pipe would run the loop in a subshell
	for file in $(grep -l -s -F -e "WRIT_LAB_RUN=$run" /proc/[0-9]*/environ); do
		pid=${file#/proc/}
		marked="$marked${pid%/environ} "
	done
	table=''
	for entry in /proc/[0-9]*; do
		pid=${entry#/proc/}
		if [ "$pid" != $$ ] && stat_of "$pid"; then
			table="$table $pid:$start:$parent"
		fi
	done
	alive=' '
	grown=yes
	while [ "$grown" = yes ]; do
		grown=no
		for row in $table; do
			parent=${row##*:}
			process=${row%:*}
			pid=${process%:*}
			case $alive in *" $pid "*) continue ;; esac
			case "$ours|$marked|$alive" in
			*" $process "*"|"*"|"* | *"|"*" $pid "*"|"* | *"|"*"|"*" $parent "*)
				alive="$alive$pid "
				ours="$ours$process "
				grown=yes
				;;
			esac
		done
	done
}

# finish SIGNAL ROUNDS: signals the processes of $ours until none is left, for at most ROUNDS tenths of a second.
finish() {
	round=0
	while [ "$round" -lt "$2" ]; do
		gather
		[ "$alive" != ' ' ] || return 0
		# shellcheck disable=SC2086 # a list of pids
		kill -s "$1" $alive 2>/dev/null
		round=$((round + 1))
		sleep 0.1
	done
	return 1
}

while read -r verb pid start; do
	case $verb in
	watch) ours="$ours$pid:$start " ;;
	keep) keep=yes ;;
	esac
done

finish TERM 30 || finish KILL 50
if [ "$keep" = no ]; then
	case $folder in
	# Removes only a directory that the laboratory created.
	*/writ-lab-*) rm -rf -- "$folder" ;;
	esac
fi
