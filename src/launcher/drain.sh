# Handles an output that processes other than the command still hold, and readers that ended early.

# _discard FD-OF-PIPE: reads and discards the rest of a stream until no process holds it. The disk does not fill, and a
# service that keeps its output does not die of a closed pipe.
_discard() {
	(
		exec <&"$1" >/dev/null 3>&- 4>&- 5<&- 6>&- 7<&- 8>&- 9>&-
		exec setsid cat
	) &
}

# _is_reader PROCESS: true if this reader still runs. After the supervisor collected the reader, another process can
# have its number.
_is_reader() {
	runs "$1" && { [ "$_process_parent" = $$ ] || [ "$_orphan" ]; }
}

# Ends the readers that still run.
_end_readers() {
	for _entry in "$_reader_out" "$_reader_err"; do
		_is_reader "$_entry" && kill -9 "$_entry"
	done
}

# True if both readers are gone or wait for more. The files then have every byte written before.
_readers_are_idle() {
	for _entry in "$_reader_out" "$_reader_err"; do
		_is_reader "$_entry" && [ "$_process_state" != S ] && return 1
	done
	return 0
}

# Sets _held to the number of processes that have a pipe of the output open for writing, and up to eight of them as
# PROCESS:NAME. A process chooses its name: characters other than letters, digits and `._+-` become `_`.
_find_holders() {
	_count=0 _held=""
	for _entry in /proc/[0-9]*/fd/*; do
		[ "$_entry" -ef /proc/self/fd/5 ] || [ "$_entry" -ef /proc/self/fd/7 ] || continue
		_process=${_entry#/proc/}
		_number=${_process##*/}
		_process=${_process%%/*}
		case $_held in *" $_process:"*) continue ;; esac
		# Last digit of the octal flags: 1 is write, 2 is read and write.
		_flags=0
		while read -r _name _value; do
			[ "$_name" = flags: ] && _flags=$_value && break
		done <"/proc/$_process/fdinfo/$_number"
		case $_flags in *[12]) ;; *) continue ;; esac
		_count=$((_count + 1))
		[ "$_count" -le 8 ] || continue
		_name=""
		read -r _name <"/proc/$_process/comm"
		while :; do
			case $_name in
			*[!A-Za-z0-9._+-]*) _name=${_name%%[!A-Za-z0-9._+-]*}_${_name#*[!A-Za-z0-9._+-]} ;;
			*) break ;;
			esac
		done
		_held="$_held $_process:${_name:-_}"
	done
	_held=$_count$_held
}

# Ends the wait for the end of the output: stores the output so far, writes the holders into the journal, and ends the
# readers. The search for holders may take 1 s. The search touches every file of every process, and a dead network file
# system does not answer.
release() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		_readers_are_idle && break
		pause 0.05
	done
	(
		_find_holders
		note H "$_held"
	) &
	_finder=$!
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		runs "$_finder" || break
		pause 0.05
	done
	kill -9 "$_finder"
	load
	[ "$_held" ] || note H -
	_end_readers
}

# _blame STATUS SIZE: sets _flag to the reason why a reader ended before the end of its stream.
_blame() {
	_flag=R
	[ -z "$_held" ] || _flag=H
	[ "$1" -lt 128 ] || return
	_hard=$(ulimit -H -f)
	case $_hard in
	*[!0-9]* | "") ;;
	*) [ "$2" -lt $((_hard * 512)) ] || _flag=S ;;
	esac
	[ "$_flag" = R ] || return
	# Tests if another block fits onto the disk.
	dd if=/dev/zero of="$_path.full" bs=4096 count=2 || _flag=F
	rm -f "$_path.full"
}

# Limits the wait for the end of the output if there is no watchdog.
_bound_wait() {
	_orphan="" _drained=0
	now
	while _is_reader "$_reader_out" || _is_reader "$_reader_err"; do
		if [ "$_drained" -ge "$_drain" ]; then
			release
			break
		fi
		pause 0.1
		step 10
		_drained=$((_drained + _step))
	done
}

# Sets _flags to the reasons for missing output. Discards streams without a reader, so a full pipe blocks no process.
_judge_output() {
	load
	if [ "$_status_out" != 0 ]; then
		_discard 5
		_blame "$_status_out" "$_out"
		_flags=$_flag
	fi
	if [ "$_status_err" != 0 ]; then
		_discard 7
		_blame "$_status_err" "$_err"
		case $_flags in *$_flag*) ;; *) _flags=$_flags$_flag ;; esac
	fi
	# The command was faster than the watchdog and wrote more than the limit.
	if [ $((_out + _err)) -gt "$_most" ]; then
		case $_signals_sent in *C*) ;; *) _flags=O$_flags ;; esac
	fi
}

# Waits until the process that ends the command has counted the remaining processes. The end is recorded later.
_await_count() {
	_patience=$((_grace / 10 + 50))
	while [ "$_signals_sent" ] && [ -z "$_left" ] && [ "$_patience" -gt 0 ]; do
		_patience=$((_patience - 1))
		pause 0.1
		load
	done
	[ "$_signals_sent" ] || _left=""
}
