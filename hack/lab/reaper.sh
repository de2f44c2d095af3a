# Ends what one run of the laboratory started, however that run ends.
#
#   sh -c "$(cat reaper.sh)" writ-lab-reaper RUN FOLDER
#
# Standard input is a pipe that only the laboratory's process holds. It writes a line for each server:
#
#   watch PID START   this process is ours; START is field 22 of /proc/PID/stat, so that a process that got
#                     the same number later is never mistaken for it
#   keep              leave FOLDER: somebody will want to read the logs
#
# When that process is gone - returned, panicked or killed with -9 - the kernel closes the pipe. Then all of these
# are ended, TERM first and KILL after about 3 s, and FOLDER is removed:
#
#   - the processes named above, and their descendants;
#   - every process with WRIT_LAB_RUN=RUN in its environment: a command that put itself into a session of
#     its own is no descendant any more, but it still has its environment.
set -u

run=$1
folder=$2
keep=no
# " PID:START PID:START ": everything that was ever seen to be ours. A process stays in here when its parent
# ends and it becomes a child of init.
ours=' '

# Whoever started us may be stopped from the terminal; we go when the pipe says so.
trap '' HUP INT QUIT TERM

# stat_of PID: sets parent and start; fails where the process is gone, or is a zombie.
stat_of() {
	{ read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
	# The name, in parentheses, may hold blanks and parentheses itself: cut at the last one.
	# shellcheck disable=SC2086 # splitting into fields is what is wanted
	set -- ${line##*) }
	[ "$1" != Z ] || return 1
	parent=$2
	start=${20}
}

# gather: adds marked processes and descendants to $ours, and sets $alive to the pids of ours that still run.
gather() {
	marked=' '
	# shellcheck disable=SC2013 # names in /proc hold no blanks, and a pipe would put the loop into a subshell
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

# finish SIGNAL ROUNDS: signals ours until none is left, for ROUNDS tenths of a second.
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
	# Never anything but a folder that the laboratory made for itself.
	*/writ-lab-*) rm -rf -- "$folder" ;;
	esac
fi
