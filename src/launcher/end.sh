# Ending the processes of an execution: for the watchdog, and for the request to stop.
#
# They are found by the session and the process group of the command, and by the mark in their environment. A process
# that has left the session and wiped its environment is not found. With `runAs` the mark is lost in sudo: there it is
# the session alone.

# Sets _found to the processes of the execution that are there, and _left to how many.
find_processes() {
	_found="" _left=0
	for _entry in $(
		grep -l -s -F -e "WRIT_EXECUTION=$_uid" /proc/[0-9]*/environ
		# State, parent, group, session: not a zombie, and the group or the session is the command's.
		[ -z "$_group" ] || grep -l -s -E -e "[)] [^ZX] [0-9]+ ([0-9]+ )?$_group " /proc/[0-9]*/stat
	); do
		_entry=${_entry#/proc/}
		_entry=${_entry%/*}
		case " $_found " in
		*" $_entry "*) ;;
		*) _found="$_found $_entry" _left=$((_left + 1)) ;;
		esac
	done
}

# Signals the group. The user that the command runs as may signal what we may not, where sudoers allows it; whom TERM
# has reached that way does not get it twice.
signal_group() {
	case $_user in
	-) ;;
	*) sudo -n -u "$_user" -- /bin/kill "-$1" -- "-$_group" </dev/null >/dev/null && [ "$1" = TERM ] && return ;;
	esac
	kill "-$1" "-$_group"
}

# send SIGNAL: to the group as one and to those outside of it singly, so to each once: some programs take a second TERM
# for impatience.
send() {
	[ -z "$_group" ] || signal_group "$1"
	for _entry in $_found; do
		stat_of "$_entry" || continue
		[ "$_process_group" = "$_group" ] || kill "-$1" "$_entry"
	done
}

# finish GRACE: TERM, the grace in hundredths of a second, KILL. Sets _left to how many are there all the same.
finish() {
	find_processes
	send TERM
	now
	_limit=$((_now + $1))
	while find_processes; [ "$_left" -gt 0 ] && now && [ "$_now" -lt "$_limit" ]; do
		pause 0.1
	done
	# Several times, as what is being killed may start others.
	for _ in 1 2 3 4 5 6 7 8; do
		[ "$_left" -gt 0 ] || break
		send KILL
		pause 0.1
		find_processes
	done
}
