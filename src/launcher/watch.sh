# The watchdog: a separate process next to the command. It answers that the command runs, unless the command is short.
# It limits time and output, even if the supervisor was killed. It ends the wait for the end of the output.

# terminate REASON: ends the command. Writes the reason into the journal first, and then the number of remaining
# processes.
terminate() {
	note "$1" "$_now"
	finish "$_grace"
	note R "$_left"
	_over=1
}

# If A is before E in the journal, this process answers on the channel, otherwise the supervisor.
_answer_late() {
	load
	case $_state in "" | S) note A && load ;; esac
	[ "$_live" ] || return
	until [ "$_state" ]; do
		pause 0.05
		load
	done
	# Even if the command has ended, only this process answers, because the supervisor has read A.
	case $_state in S | E) ;; *) return ;; esac
	now
	(
		exec 4>&- 7<&- 8>&- 9>&-
		follow
	) &
	_follower=$!
}

# The death of a reader must not stop the command, so the rest of its stream is discarded. Above the output limit, the
# command is ended first. Otherwise it could end by itself, as if no output were missing.
_replace_readers() {
	_dead=""
	[ "$_replaced_out" ] || _is_reader "$_reader_out" || _dead="${_dead}5"
	[ "$_replaced_err" ] || _is_reader "$_reader_err" || _dead="${_dead}7"
	[ "$_dead" ] || return
	# After the exit, this is only the end of the output.
	load
	[ "$_state" = S ] && [ -z "$_exit" ] || return
	written
	[ $((_out + _err)) -gt "$_most" ] && terminate C
	case $_dead in *5*) _replaced_out=1 && _discard 5 ;; esac
	case $_dead in *7*) _replaced_err=1 && _discard 7 ;; esac
}

# Checks the command once while it runs. The second check after the timeout ends the command.
_bound() {
	written
	if [ $((_out + _err)) -gt "$_most" ]; then
		terminate C
	elif [ "$_elapsed" -ge "$_limit" ]; then
		[ "$_due" ] && terminate T
		_due=1
	else
		_replace_readers
	fi
}

# Checks once after the exit, while output can still arrive. False if there is nothing more to wait for.
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

# Runs after the first 0.2 seconds, see `watch`.
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
			# The directory was removed, and with it the record of the end.
			runs "$_command" || break
		fi
		if [ "$_exit" ]; then
			_drain || break
			continue
		fi
		[ "$_signals_sent" ] || _bound
		[ "$_over" ] && [ "$_orphan" ] && break
		pause 0.25
		step 25
		_elapsed=$((_elapsed + _step))
	done
	_write_orphaned_end
	[ -z "$_follower" ] || wait "$_follower"
}

# Writes the end if the supervisor is gone: the exit code if it is known, otherwise only that the command was ended.
_write_orphaned_end() {
	load
	[ "$_state" = S ] && ! _supervised || return
	[ "$_exit$_over" ] || return
	written
	now
	# shellcheck disable=SC2086
	set -- ${_exit:-- - $_now}
	write_end "$1" "$2" "$3" "${_signals_sent}R"
	_orphan=1
	_end_readers
}
