# The end of an output that others than the command still hold, and of readers that ended early.

# _discard FD-OF-PIPE: reads the rest of a stream into nothing until nobody holds it any more, so that neither the disk
# fills nor a service that keeps its output dies of it.
_discard() {
	(
		exec <&"$1" >/dev/null 3>&- 4>&- 5<&- 6>&- 7<&- 8>&- 9>&-
		exec setsid cat
	) &
}

# _is_reader PROCESS: whether this reader is still there. Once the supervisor has collected it, its number may be another's.
_is_reader() {
	runs "$1" && { [ "$_process_parent" = $$ ] || [ "$_orphan" ]; }
}

# Ends the readers that are still there.
_end_readers() {
	for _entry in "$_reader_out" "$_reader_err"; do
		_is_reader "$_entry" && kill -9 "$_entry"
	done
}

# Whether both readers are gone or wait for more: then every byte that was written before is in the files.
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
		# The last digit of the flags, which are octal: 1 writes, 2 reads and writes.
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

# Ends the wait for the end of the output: stores what was written so far, names the holders in the journal, and ends the
# readers. The search for holders asks every file of every process, and a dead network file system does not answer.
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

# _blame STATUS SIZE: sets _flag to why a reader ended before the end of its stream.
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
	# Whether another block fits onto the disk is tried.
	dd if=/dev/zero of="$_path.full" bs=4096 count=2 || _flag=F
	rm -f "$_path.full"
}

# Without a watchdog, the supervisor bounds the wait for the end of the output itself.
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

# Sets _flags to what is missing of the output, and sees that nobody is stopped by a pipe that is not read.
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
	# More than the limit, in a command that was quicker than the watchdog.
	if [ $((_out + _err)) -gt "$_most" ]; then
		case $_told in *C*) ;; *) _flags=O$_flags ;; esac
	fi
}

# Whoever ends a command counts the processes that are left before it is said to have ended.
_await_count() {
	_patience=$((_grace / 10 + 50))
	while [ "$_told" ] && [ -z "$_left" ] && [ "$_patience" -gt 0 ]; do
		_patience=$((_patience - 1))
		pause 0.1
		load
	done
	[ "$_told" ] || _left=""
}
