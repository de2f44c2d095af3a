# Checks the directory of the request, and reads the journal.
#
# Arguments: DIRECTORY DIRECTORY-ID UID.
_directory=$1
_identity=$2
_uid=$3
_path=$1/$3
shift 3

# note LINE: appends a line to the journal.
note() {
	printf "%s\n" "$*" >>"$_path.j"
}

# Sleeps for a fraction of a second, or for a second if `sleep` knows no fractions. Keeps no file of the channel or
# output open.
pause() {
	sleep "$1" || sleep 1
} >/dev/null 3>&- 4>&- 5<&- 6>&- 7<&- 8>&- 9>&-

# Reads the journal. Sets _state to S (started), E (ended), X (not started), Z (closed before a start) or nothing (none
# of these yet), and the variables of the lines. Each line is one write, so the lines are in the order of the events. A
# start after Z does not count. No line after E counts. A line without its newline does not count yet.
load() {
	_state="" _fence="" _start="" _exit="" _end="" _why="" _live="" _signals_sent="" _left="" _message="" _held=""
	while read -r _kind _rest; do
		case $_state:$_kind in
		:F) _fence=$_rest ;;
		:S) _state=S _start=$_rest ;;
		:X) _state=X _why=$_rest && break ;;
		:Z) _state=Z && break ;;
		S:E) _state=E _end=$_rest && break ;;
		*:A) _live=1 ;;
		# After the exit of the command itself, a signal ends only the processes that it left behind.
		S:[TCK]) [ "$_exit" ] || _signals_sent=$_signals_sent$_kind ;;
		S:R) _left=$_rest ;;
		S:P) _exit=$_rest ;;
		S:H) _held=$_rest ;;
		S:Z | S:) ;;
		# The supervisor's shell prints a message if a signal ended the command. bash also prints messages about its
		# other processes, with their numbers.
		S:*)
			case "$_kind $_rest " in
			*" ${_start%% *} "*) _message=1 ;;
			*": line "*) ;;
			*) _message=1 ;;
			esac
			;;
		esac
	done <"${_record:-$_path.j}"
	# The name of a user can contain pattern characters.
	set -f
	# shellcheck disable=SC2086 # splitting into fields is what is wanted
	_take_fence $_fence
	# shellcheck disable=SC2086
	_take_start $_start
	set +f
}

# The fence: version, boot id, time, timeout and grace in hundredths of a second, maximum output in bytes, other user or
# `-`, wait for the end of the output in hundredths of a second.
_take_fence() {
	_fence_boot=$2 _grace=$5 _user=$7
}

# The start: process group (and session, and process) of the command, process of its supervisor, start time of the
# command as in /proc/PID/stat, time.
_take_start() {
	_group=$1 _supervisor=$2 _begun=$3 _started=$4
}

# The claim is valid for this directory only, because another directory has no fence.
_found=""
[ -L "$_directory" ] && refuse directory
if [ -d "$_directory" ] && [ -O "$_directory" ]; then
	read -r _found <"$_directory/id"
fi
[ "$_found" ] && [ "$_found" = "$_identity" ] || refuse directory
read -r _boot </proc/sys/kernel/random/boot_id
