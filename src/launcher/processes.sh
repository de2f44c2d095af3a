# What the machine says of processes, and of time that passes.

# step LEAST: sets _step to how long a round took, in hundredths of a second. A sleep that returned proves LEAST. The
# clock counts only if two readings agree with that: a reading that fails or jumps is not a time.
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

# _stat_of PROCESS: sets its state, parent, group, session and start. A process chooses its own name, which stands in
# parentheses and may hold anything, newlines too: the fields come behind the last parenthesis of the last line.
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

# runs PROCESS: whether it is there, and more than an entry that its parent has yet to collect.
runs() {
	_stat_of "$1" || return
	case $_process_state in [ZX]) return 1 ;; esac
}

# Whether the supervisor is there, and not a later process with its number. It is older than the command.
_supervised() {
	runs "$_supervisor" && [ "$_process_start" -le "$_begun" ]
}

