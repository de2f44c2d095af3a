# Reads processes and elapsed time from /proc.

# step LEAST: sets _step to the duration of a round, in hundredths of a second: at least LEAST, as a `sleep` returned.
# The clock counts only if two readings agree with LEAST. A failed or jumping reading is ignored.
step() {
	_last=$_now
	now
	_step=$1
	case $_last$_now in
	*-*) ;;
	*)
		_difference=$((_now - _last))
		[ "$_difference" -ge "$1" ] && [ "$_difference" -le 100 ] && _step=$_difference
		;;
	esac
}

# _stat_of PROCESS: sets the state, parent, group, session and start of a process. A process chooses its name, which is
# in parentheses and can contain anything, even newlines. So the fields are read after the last parenthesis of the last
# line.
_stat_of() {
	_line=""
	while read -r _part || [ "$_part" ]; do _line=$_part; done <"/proc/$1/stat"
	[ "$_line" ] || return
	# shellcheck disable=SC2086
	set -- ${_line##*) }
	_process_state=$1 _process_parent=$2 _process_group=$3 _process_session=$4
	shift 9
	_process_start=${11}
}

# runs PROCESS: true if the process exists and is not a zombie.
runs() {
	_stat_of "$1" || return
	case $_process_state in [ZX]) return 1 ;; esac
}

# True if the supervisor runs, and no later process has its number. The supervisor is older than the command.
_supervised() {
	runs "$_supervisor" && [ "$_process_start" -le "$_begun" ]
}

