# Ends the processes of an execution, for the watchdog and for the stop request.
#
# The processes are found by the session and the process group of the command, and by the mark in their environment. A
# process that has left the session and cleared its environment is not found. With `runAs`, sudo drops the mark, so only
# the session counts.

# These variables change the output or the options of grep.
_plain_grep() {
	unset GREP_OPTIONS GREP_COLORS POSIXLY_CORRECT
}

# Prints the environments that contain the mark as a whole field. The mark comes by standard input, so that no other
# user learns the UID from the arguments of grep. The grep of busybox reads only up to the first NUL byte, so it does
# not find its own word. For this grep, the fields become lines, and newlines in fields become spaces.
_marked() {
	_mark=WRIT_EXECUTION=$_uid
	if grep -q -F -e behind-a-zero-byte /proc/self/cmdline; then
		# shellcheck disable=SC2062 # the pattern comes by -f
		echo "$_mark" | grep -l -s -z -x -F -f - /proc/[0-9]*/environ
		return
	fi
	for _entry in /proc/[0-9]*/environ; do
		[ -r "$_entry" ] || continue
		_fields=$(tr "\\0\\n" "\\n " <"$_entry")
		case "
$_fields
" in
		*"
$_mark
"*) echo "$_entry" ;;
		esac
	done
}

# Prints the command, which has no own session just after its start, and the processes in its session or group. grep
# only finds candidates, because a process can give itself a name that looks like these fields.
_in_session() {
	[ "$_group" ] || return
	for _entry in "/proc/$_group/stat" $(grep -l -s -E -e "[)] [^ZX] [0-9]+ ([0-9]+ )?$_group " /proc/[0-9]*/stat); do
		_process=${_entry#/proc/}
		_process=${_process%/*}
		runs "$_process" || continue
		case " $_process $_process_group $_process_session " in *" $_group "*) echo "$_entry" ;; esac
	done
}

# Sets _found to the running processes of the execution, and _left to their number.
gather() {
	_found="" _left=0
	for _entry in $(_marked; _in_session); do
		_entry=${_entry#/proc/}
		_entry=${_entry%/*}
		case " $_found " in
		*" $_entry "*) ;;
		*) _found="$_found $_entry" _left=$((_left + 1)) ;;
		esac
	done
}

# Signals the group. With `runAs`, the other user can signal processes that the login user cannot, if sudoers allows it.
# Processes that got TERM through sudo do not get TERM again.
_signal_group() {
	case $_user in
	-) ;;
	*) sudo -n -u "$_user" -- /bin/kill "-$1" -- "-$_group" </dev/null >/dev/null && [ "$1" = TERM ] && return ;;
	esac
	kill "-$1" "-$_group"
}

# send SIGNAL: signals the group as a whole and the other processes one by one, each once, because some programs handle
# a second TERM differently.
send() {
	[ -z "$_group" ] || _signal_group "$1"
	for _entry in $_found; do
		_stat_of "$_entry" || continue
		[ "$_process_group" = "$_group" ] || kill "-$1" "$_entry"
	done
}

# finish GRACE: sends TERM, waits for the grace in hundredths of a second, and sends KILL. Sets _left to the number of
# remaining processes, or to `-` if they cannot be observed.
finish() {
	# The number belongs to the command while its supervisor waits. Later, another process can have the number.
	if _stat_of "$_group"; then
		[ "$_process_start" = "$_begun" ] || _group=""
	fi
	gather
	send TERM
	now
	_waited=0
	while gather; [ "$_left" -gt 0 ] && [ "$_waited" -lt "$1" ]; do
		pause 0.1
		step 10
		_waited=$((_waited + _step))
	done
	# Repeated, because processes that are being killed can start others.
	for _ in 1 2 3 4 5 6 7 8; do
		[ "$_left" -gt 0 ] || break
		send KILL
		pause 0.1
		gather
	done
	# Some machines hide the processes of other users (hidepid).
	[ "$_user" = - ] || read -r _ </proc/1/stat || _left=-
}
