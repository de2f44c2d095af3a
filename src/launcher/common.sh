# The start of every request but the probe: what is known of the request, and how the journal is read.
#
# Arguments of all: NONCE DIRECTORY DIRECTORY-ID UID, then those of the request.
#
# Names of variables start with `_`: so none of them is one that the session has exported, and that the command would then
# see changed. So do those of most functions; all of them are shortened. No program is run where the shell or /proc can
# tell: a program costs 0.5 to 1 ms.
{ set +efux; } 2>/dev/null
unset IFS
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# 3 is the standard error of the channel, 4 its standard input. What our own tools complain of is nobody's output.
exec 3>&2 2>/dev/null 4<&0
# The nonce alone: the arguments come by standard input, as a line that sets them.
if [ "$#" = 1 ]; then
	IFS="" read -r _arguments || exit
	eval "$_arguments"
fi
_nonce=$1
_directory=$2
_identity=$3
_uid=$4
_path=$2/$4
shift 4

# The mark is put together here, so that a shell that shows our command line does not show the mark.
answer() {
	echo "WRIT:$_nonce:$*"
}

# note LINE: in the journal.
note() {
	echo "$*" >>"$_path.j"
}

# refuse WHY: nothing was started by this request.
refuse() {
	answer R "$1"
	exit
}

# Sleeps a part of a second, or a second where `sleep` knows no parts. Must not keep the channel open.
pause() {
	sleep "$1" || sleep 1
} >/dev/null 3>&- 4<&-

# Sets _now: hundredths of a second since the machine started.
now() {
	read -r _now _ </proc/uptime
	_now=${_now%.*}${_now#*.}
	_now=${_now#0}
	_now=${_now#0}
}

# Reads the journal. Sets _state to S (started), E (ended), X (not started), Z (closed before a start) or nothing (none of
# these yet), and what the lines say. Lines are appended whole, so their order is the order of what happened: a start
# behind Z is none, and nothing behind E counts. A line without its newline is not there yet.
load() {
	_state="" _fence="" _start="" _end="" _why="" _live="" _told="" _left="" _message=""
	while read -r _kind _rest; do
		case $_state:$_kind in
		:F) _fence=$_rest ;;
		:S) _state=S _start=$_rest ;;
		:X) _state=X _why=$_rest && break ;;
		:Z) _state=Z && break ;;
		S:E) _state=E _end=$_rest && break ;;
		*:A) _live=1 ;;
		S:[TCK]) _told=$_told$_kind ;;
		S:R) _left=$_rest ;;
		S:Z | S:) ;;
		# What the supervisor's shell says where a signal ended the command.
		S:*) _message=1 ;;
		esac
	done <"$_path.j"
	# shellcheck disable=SC2086 # splitting into fields is what is wanted
	_take_fence $_fence
	# shellcheck disable=SC2086
	_take_start $_start
}

# The fence: version, boot id, when, time limit and grace in hundredths of a second, most output in bytes, other user or -.
_take_fence() {
	_fence_boot=$2 _grace=$5 _user=$7
}

# The start: process group (and session, and process) of the command, process of its supervisor, start of the former as
# in /proc/PID/stat, when.
_take_start() {
	_group=$1 _supervisor=$2 _begun=$3 _started=$4
}

# _stat_of PROCESS: sets its state, its group and when it was started. Its name, in parentheses, may hold anything.
_stat_of() {
	read -r _line <"/proc/$1/stat" || return
	# shellcheck disable=SC2086
	set -- ${_line##*) }
	_process_state=$1 _process_group=$3
	shift 9
	_process_start=${11}
}

# Whether the supervisor is there, and not a later process with its number. It is older than the command.
_supervised() {
	_stat_of "$_supervisor" && [ "$_process_state" != Z ] && [ "$_process_start" -le "$_begun" ]
}

# What was decided for this machine holds for this very directory: in another one the fence would be missing.
_found=""
[ -L "$_directory" ] && refuse directory
if [ -d "$_directory" ] && [ -O "$_directory" ]; then
	read -r _found <"$_directory/id"
fi
[ "$_found" ] && [ "$_found" = "$_identity" ] || refuse directory
read -r _boot </proc/sys/kernel/random/boot_id
