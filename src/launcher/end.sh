# Ending the processes of an execution: for the watchdog, and for the request to stop.
#
# They are found by the session and the process group of the command, and by the mark in their environment. A process
# that has left the session and wiped its environment is not found. With `runAs` the mark is lost in sudo: there it is
# the session alone.

# Names the environments that hold the mark. The grep of busybox looks no further than the first byte 0: it does not even
# find what it was asked for in its own words. There the shell reads, which drops these bytes.
marked() {
	_mark=WRIT_EXECUTION=$_uid
	if grep -q -F -e "$_mark" /proc/self/cmdline; then
		grep -l -s -F -e "$_mark" /proc/[0-9]*/environ
		return
	fi
	for _entry in /proc/[0-9]*/environ; do
		[ -r "$_entry" ] || continue
		while read -r _line || [ "$_line" ]; do
			case $_line in *"$_mark"*) echo "$_entry" ;; esac
		done <"$_entry"
	done
}

# Names the command, which just after its start is in no session of its own yet, and the processes that run in its session
# or in its group: state, parent, group, session.
_in_session() {
	[ -n "$_group" ] || return
	_stat_of "$_group" && [ "$_process_state" != Z ] && echo "/proc/$_group/stat"
	grep -l -s -E -e "[)] [^ZX] [0-9]+ ([0-9]+ )?$_group " /proc/[0-9]*/stat
}

# Sets _found to the processes of the execution that are there, and _left to how many.
gather() {
	_found="" _left=0
	for _entry in $(marked; _in_session); do
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
_signal_group() {
	case $_user in
	-) ;;
	*) sudo -n -u "$_user" -- /bin/kill "-$1" -- "-$_group" </dev/null >/dev/null && [ "$1" = TERM ] && return ;;
	esac
	kill "-$1" "-$_group"
}

# send SIGNAL: to the group as one and to those outside of it singly, so to each once: some programs take a second TERM
# for impatience.
send() {
	[ -z "$_group" ] || _signal_group "$1"
	for _entry in $_found; do
		_stat_of "$_entry" || continue
		[ "$_process_group" = "$_group" ] || kill "-$1" "$_entry"
	done
}

# finish GRACE: TERM, the grace in hundredths of a second, KILL. Sets _left to how many are there all the same, or to `-`
# where that cannot be seen.
finish() {
	# The number is the command's own for as long as its supervisor waits for it; then a later process may have it.
	if _stat_of "$_group"; then
		[ "$_process_start" = "$_begun" ] || _group=""
	fi
	gather
	send TERM
	now
	_kill_at=$((_now + $1))
	while gather; [ "$_left" -gt 0 ] && now && [ "$_now" -lt "$_kill_at" ]; do
		pause 0.1
	done
	# Several times, as what is being killed may start others.
	for _ in 1 2 3 4 5 6 7 8; do
		[ "$_left" -gt 0 ] || break
		send KILL
		pause 0.1
		gather
	done
	# What another user runs cannot be seen everywhere (hidepid).
	[ "$_user" = - ] || read -r _ </proc/1/stat || _left=-
}
