# Answers from the journal.

# lengths OUT ERR: sets _out and _err to the sizes of the files, at most to OUT and ERR.
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

# Sets _verdict, _out and _err for an execution that no longer runs. The lengths exclude bytes that the files have lost.
# The flag is then G (acknowledged and removed) or I (a part is missing).
conclude() {
	# The supervisor died after its command, so the end of the output is unknown, but not the exit code.
	[ "$_state" = S ] && [ "$_exit" ] && [ "$_boot" = "$_fence_boot" ] && _ended_without_supervisor
	if [ "$_state" = E ]; then
		# Exit code, signal, lengths, time, flags, processes left.
		# shellcheck disable=SC2086
		set -- $_end
		lengths "$3" "$4"
		_verdict="D $_who $_from_out $_from_err $_started $1 $2 $_out $_err $5 $6$_missing $7 $_held"
	else
		lengths 999999999999999 999999999999999
		_verdict="L $_who $_from_out $_from_err ${_started:--} $_out $_err"
		# Without a journal the boot of the start is unknown.
		[ "$_boot" = "${_fence_boot:-$_boot}" ] || _verdict="$_verdict boot"
	fi
}

# Sets _state and _end to the known facts.
_ended_without_supervisor() {
	lengths 999999999999999 999999999999999
	# shellcheck disable=SC2086
	set -- $_exit
	_state=E _end="$1 $2 $_out $_err $3 -${_signals_sent}R ${_left:--}"
}

# Sends the output while the command runs, then the verdict. A launch runs this in a process of its own, so a client
# that does not read blocks only that process.
follow() {
	answer "A $_who $_from_out $_from_err $_started $_now $_group"
	answer +
	_open_output
	_ticks=0 _tick=0.05 _quiet=0
	while load && [ "$_state" = S ]; do
		_before=$_sent_out
		# The supervisor's positions in the output files are their ends.
		if { read -r _ _out <"/proc/$_supervisor/fdinfo/8"; } && { read -r _ _err <"/proc/$_supervisor/fdinfo/9"; }; then
			_send_output "$_out" "$_err"
		elif load && [ "$_state" = S ]; then
			_supervised || { [ "$_exit" ] && pause 1 && load; break; }
		fi
		# The interval is 0.05 s at first, and 0.2 s from about the tenth second on.
		_ticks=$((_ticks + 1))
		[ "$_ticks" -lt 200 ] || _tick=0.2
		# Writes a mark every two seconds. If the client is gone, the write ends this process.
		_quiet=$((_quiet + 1))
		[ "$_before" = "$_sent_out" ] || _quiet=0
		case $_tick:$_quiet in 0.05:40 | 0.2:1[0-9] | 0.2:[2-9][0-9]) _quiet=0 && answer + ;; esac
		pause "$_tick"
	done
	conclude
	_send_end
}
