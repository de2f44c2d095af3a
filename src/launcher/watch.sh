# The watchdog: next to the command, in a process of its own. It answers that the command runs, once that takes longer than
# a short one does; it bounds time and output, also if the supervisor was killed; it ends the wait for the output's end.

# over REASON: ends the command. The journal says first why, and then how many processes are left.
over() {
	note "$1" "$_now"
	finish "$_grace"
	note R "$_left"
	_over=1
}

# The first of A and E in the journal says who answers on the channel: this process or the supervisor.
_answer_late() {
	load
	case $_state in "" | S) note A && load ;; esac
	[ "$_live" ] || return
	until [ "$_state" ]; do
		pause 0.05
		load
	done
	# It may have ended meanwhile: the supervisor has read that this process answers. Nobody is left to answer otherwise.
	case $_state in S | E) ;; *) return ;; esac
	now
	(
		exec 4>&- 7<&- 8>&- 9>&-
		follow
	) &
	_follower=$!
}

# A reader that died must not stop the command: the rest of its stream is discarded. At the limit the command is ended
# first, else it could still end by itself as if nothing were missing.
_replace_readers() {
	_dead=""
	[ "$_replaced_out" ] || _is_reader "$_reader_out" || _dead="${_dead}5"
	[ "$_replaced_err" ] || _is_reader "$_reader_err" || _dead="${_dead}7"
	[ "$_dead" ] || return
	# The end of the output looks the same, and comes after the exit.
	load
	[ "$_state" = S ] && [ -z "$_exit" ] || return
	written
	[ $((_out + _err)) -gt "$_most" ] && over C
	case $_dead in *5*) _replaced_out=1 && _discard 5 ;; esac
	case $_dead in *7*) _replaced_err=1 && _discard 7 ;; esac
}

# One look at the command while it runs. Two looks that agree are needed to end it for its time.
_bound() {
	written
	if [ $((_out + _err)) -gt "$_most" ]; then
		over C
	elif [ "$_elapsed" -ge "$_limit" ]; then
		[ "$_due" ] && over T
		_due=1
	else
		_replace_readers
	fi
}

# One look after the exit, while the output may go on. False once there is nothing more to wait for.
_drain() {
	if [ "$_drained" -ge "$_drain" ]; then
		release
		return 1
	fi
	[ -z "$_orphan" ] || _is_reader "$_reader_out" || _is_reader "$_reader_err" || return
	pause 0.1
	step 10
	_drained=$((_drained + _step))
}

# From the first 0.2 seconds on, see `watch`.
watch_on() {
	_follower="" _replaced_out="" _replaced_err="" _due="" _over="" _orphan="" _command="" _elapsed=20 _drained=0
	_plain_grep
	_answer_late
	exec >/dev/null 3>&-
	now
	while load && [ "${_state:-S}" = S ]; do
		if [ "$_state" ]; then
			_command=$_group
			_supervised || _orphan=1
		elif [ "$_command" ]; then
			# The directory was taken away, and the end with it.
			runs "$_command" || break
		fi
		if [ "$_exit" ]; then
			_drain || break
			continue
		fi
		[ "$_told" ] || _bound
		[ "$_over" ] && [ "$_orphan" ] && break
		pause 0.25
		step 25
		_elapsed=$((_elapsed + _step))
	done
	_write_orphaned_end
	[ -z "$_follower" ] || wait "$_follower"
}

# Without its supervisor, nobody else writes how it ended: the exit code, if that was seen; else only that it was ended.
_write_orphaned_end() {
	load
	[ "$_state" = S ] && ! _supervised || return
	[ "$_exit$_over" ] || return
	written
	now
	# shellcheck disable=SC2086
	set -- ${_exit:-- - $_now}
	write_end "$1" "$2" "$3" "${_told}R"
	_orphan=1
	_end_readers
}
