# Starts the command, unless somebody has: then it tells of that execution.
#
# Further arguments: BOOT-ID LAST-START (hundredths of a second since the machine started) TIME-LIMIT and GRACE (hundredths
# of a second) MOST-OUTPUT (bytes, both streams) USER (or -) SKIP, then the words to execute; after SKIP of them comes the
# program.

# The command: in a session of its own, with the files as its output, and nothing else of ours. Its start is in the
# journal before it is executed; where the journal was closed first, it is not.
execute() {
	read -r _pid _ _ _parent _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _begun _ </proc/self/stat
	now
	note "S $_pid $_parent $_begun $_now" || exit
	load
	[ "$_state" = S ] || exit
	exec setsid "$@" </dev/null >&8 2>&9 3>&- 4<&- 8>&- 9>&-
}

# over REASON: ends the command. The journal says first why, and then how many processes are left.
over() {
	note "$1" "$_now"
	finish "$_grace"
	note R "$_left"
}

# Beside the command: answers that it runs, once it takes longer than a short one, and bounds its time and its output;
# also where the supervisor was killed. The first of A and E in the journal says who answers on the channel.
watch() {
	_follower="" _listener=""
	pause 0.2
	load
	case $_state in "" | S) note A && load ;; esac
	if [ "$_live" ]; then
		until [ "$_state" ]; do
			pause 0.05
			load
		done
		[ "$_state" = S ] && now && stream
	fi
	exec >/dev/null 3>&- 4<&-
	_due=$((_fenced + _limit))
	while load && [ "${_state:-S}" = S ]; do
		now
		written
		if [ "$_now" -ge "$_due" ]; then
			over T
			break
		elif [ $((_out + _err)) -gt "$_most" ]; then
			over C
			break
		fi
		pause 0.25
	done
	_supervised || orphaned
	[ -z "$_follower" ] || wait "$_follower"
	[ -z "$_listener" ] || kill -9 "$_listener"
}

# Without its supervisor, nobody else writes how it ended.
orphaned() {
	load
	[ "$_state" = S ] && [ "$_told" ] && written && now && _write_end - -
}

# Sets _out and _err to how many bytes the command has written: the offsets of the files that it has from us.
written() {
	read -r _ _out </proc/self/fdinfo/8
	read -r _ _err </proc/self/fdinfo/9
}

# _write_end CODE SIGNAL: the last line of the journal that counts.
_write_end() {
	until note "E $1 $2 $_out $_err $_now -$_told$_full ${_left:--}"; do
		pause 1
	done
}

_not_started() {
	note X "$1"
	answer X "$1"
	exit
}

# Output that did not fit onto the disk ends where a block does. Whether another block fits now is then tried.
_disk_full() {
	case $((_out % 4096)):$_out:$((_err % 4096)):$_err in
	0:[1-9]*:*:* | *:*:0:[1-9]*) dd if=/dev/zero of="$_path.full" bs=4096 count=2 || _full=I && rm -f "$_path.full" ;;
	esac
}

# What the command's shell would have done: run it in the foreground, and take its exit code.
supervise() {
	exec 2>>"$_path.j"
	watch 2>/dev/null &
	_watch=$!
	# As sh, bash says nothing of a signal.
	[ -z "$BASH_VERSION" ] || command set +o posix
	(execute "$@")
	_code=$?
	exec 2>/dev/null
	load
	# The journal was taken away while the command ran, by whom ever: that it started stays true. The number is no process.
	[ "$_state$_fence" ] || { note S 4194305 0 0 "$_now" && load; }
	[ "$_state" = Z ] && answer V && exit
	[ "$_state" = S ] || _not_started space
	# Whoever ends it looks for what is left before it is said to have ended.
	_patience=$((_grace / 10 + 50))
	while [ "$_told" ] && [ -z "$_left" ] && [ "$_patience" -gt 0 ]; do
		_patience=$((_patience - 1))
		pause 0.1
		load
	done
	[ "$_told" ] || _left=""
	# 128 and the signal is also what a program may exit with; only after a signal does the shell say something.
	_signal=-
	[ "$_code" -gt 128 ] && [ "$_message" ] && _signal=$((_code - 128))
	written
	_disk_full
	now
	_write_end "$_code" "$_signal"
	load
	if [ "$_live" ]; then
		wait "$_watch"
		exit
	fi
	kill -9 "$_watch"
	answer "D S 0 0 $_started $_end"
	answer 2 >&3
	copy "$_out" <"$_path.o"
	copy "$_err" <"$_path.e" >&3
}

_who=S _from_out=0 _from_err=0 _full=""
# The output is told of, too: a command that has taken its journal away is not started again.
[ -e "$_path.j" ] || [ -e "$_path.o" ] && attach follow
now
[ "$_boot" = "$1" ] || refuse boot
[ "$_now" -le "$2" ] || refuse late
_fenced=$_now _limit=$3 _most=$5 _user=$6 _skip=$7

# The command gets the umask of the session back: asked without a process where the kernel tells it (since 4.7).
{ read -r _ && read -r _kind _mask; } </proc/self/status
[ "$_kind" = Umask: ] || _mask=$(umask)
umask 77

# The fence: of all that try, ever, one makes the journal.
set -C
if command exec 7>"$_path.j"; then
	set +C
	exec 7>&-
else
	[ -e "$_path.j" ] && attach follow
	[ -w "$_directory" ] && refuse space
	refuse unwritable
fi
note "F 1 $_boot $_now $3 $4 $5 $6" || refuse space
shift 7

# sudo that refuses exits 1, as the command may: so it is asked first.
[ "$_user" = - ] || (
	shift "$_skip"
	exec sudo -n -l -u "$_user" -- "$@"
) </dev/null >/dev/null || _not_started sudo

# Not writable by the command: opening /dev/stdout again would cut off what was written.
umask 377
command exec 8>>"$_path.o" && command exec 9>>"$_path.e" || _not_started space
umask "$_mask"
supervise "$@"
