# Answering with what the journal says, and with the output from where the reader wants to go on.

# copy COUNT: so many bytes from standard input to standard output, and no more, as the file may go on growing.
copy() {
	if [ "$1" -ge 65536 ]; then
		dd bs=65536 count=$(($1 / 65536)) || exit
	fi
	if [ $(($1 % 65536)) -gt 0 ]; then
		dd bs=$(($1 % 65536)) count=1 || exit
	fi
}

# seek OFFSET: standard input, which stays where it is then.
seek() {
	[ "$1" = 0 ] || dd bs=1 skip="$1" count=0 >/dev/null
}

# Opens the output as 5 and 6, where the reader wants to go on.
_open_output() {
	_sent_out=$_from_out _sent_err=$_from_err
	command exec 5<"$_path.o" && command exec 6<"$_path.e" || return
	seek "$_from_out" <&5
	seek "$_from_err" <&6
}

# _send_output OUT ERR: the output up to these offsets.
_send_output() {
	if [ "$1" -gt "$_sent_out" ]; then
		copy $(($1 - _sent_out)) <&5
		_sent_out=$1
	fi
	if [ "$2" -gt "$_sent_err" ]; then
		copy $(($2 - _sent_err)) <&6 >&3
		_sent_err=$2
	fi
}

# lengths OUT ERR: sets _out and _err to the sizes of the files, but to no more than these.
lengths() {
	_out=$(wc -c <"$_path.o")
	_err=$(wc -c <"$_path.e")
	_out=$((_out)) _err=$((_err))
	_missing=""
	[ "$_out" -ge "$1" ] && [ "$_err" -ge "$2" ] || _missing=I
	[ -e "$_path.o" ] || _missing=G
	[ "$_out" -le "$1" ] || _out=$1
	[ "$_err" -le "$2" ] || _err=$2
	[ "$_from_out" -le "$_out" ] || _from_out=$_out
	[ "$_from_err" -le "$_err" ] || _from_err=$_err
}

# Sets _verdict for an execution that runs no more, and _out and _err. What is not in the files any more is not promised:
# the flags then say G (acknowledged, gone) or I (a part is missing).
conclude() {
	if [ "$_state" = E ]; then
		# Exit code, signal, lengths, when, flags, processes left.
		# shellcheck disable=SC2086
		set -- $_end
		lengths "$3" "$4"
		_verdict="D $_who $_from_out $_from_err $_started $1 $2 $_out $_err $5 $6$_missing $7"
	else
		lengths 999999999999999 999999999999999
		_verdict="L $_who $_from_out $_from_err ${_started:-0} $_out $_err"
		# A journal that was taken away says nothing of a boot.
		[ "$_boot" = "${_fence_boot:-$_boot}" ] || _verdict="$_verdict boot"
	fi
}

# The output while the command runs, then the verdict. Is a process of its own: a reader that does not read stops it, and
# nothing else.
follow() {
	answer "A $_who $_from_out $_from_err $_started $_now $_group"
	answer 2 >&3
	_open_output
	_ticks=0 _tick=0.05
	while load && [ "$_state" = S ]; do
		# How far the command has written: the supervisor has the same files open.
		if { read -r _ _out <"/proc/$_supervisor/fdinfo/8"; } && { read -r _ _err <"/proc/$_supervisor/fdinfo/9"; }; then
			_send_output "$_out" "$_err"
		elif load && [ "$_state" = S ]; then
			_supervised || break
		fi
		# Every 0.05 s at first; every 0.2 s from about the tenth second on.
		_ticks=$((_ticks + 1))
		[ "$_ticks" -lt 200 ] || _tick=0.2
		pause "$_tick"
	done
	conclude
	_send_output "$_out" "$_err"
	answer "$_verdict"
}

# The same, until the end of the channel's standard input says that nobody listens any more.
stream() {
	follow &
	_follower=$!
	(
		while read -r _; do :; done
		kill -9 "$_follower"
	) <&4 >/dev/null 3>&- 4<&- &
	_listener=$!
}
