# Starts the command, unless somebody has: then it tells of that execution.
#
# Further arguments: BOOT-ID NOT-BEFORE LAST-START (hundredths of a second since the machine started) TIME-LIMIT and GRACE
# (hundredths of a second) MOST-OUTPUT (bytes, both streams) DRAIN (hundredths of a second) USER (or -) DIRECTORY (or
# empty) SKIP, then the words to execute; after SKIP of them comes the program.

# The parts of this script that a short command does not need are a text, which is read once it is: that saves their
# parsing, 0.3 ms in dash and 0.8 ms in bash.
_later='
@LATER@'

# The command: in a session of its own, with the pipes as its output, and nothing else of ours. Its start is in the
# journal before it is executed; if the journal was closed first, it is not. Redirections may fail (ulimit -n), so they come
# before that; the last one needs no number that was not there.
execute() {
	command exec </dev/null >&4 2>/dev/null 3>&- 4>&- 5<&- 7<&- 8>&- 9>&- || exit
	{
		read -r _pid _ _ _parent _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _begun _ </proc/self/stat
		now
		note "S $_pid $_parent $_begun $_now" || exit
		load
		[ "$_state" = S ] || exit
	}
	exec 2>&6 6>&-
	# Only bash minds it, and only in the shell that has it.
	[ -z "$_t" ] || export TMOUT="$_t"
	# Programs of ours that only the PATH of the login has are found by it. The command gets the fixed PATH.
	_program=setsid
	[ -x /usr/bin/setsid ] || [ -x /bin/setsid ] || _program=$(command -v setsid)
	[ "$_user" = - ] || [ -x /usr/bin/sudo ] || [ -x /usr/local/bin/sudo ] || _find_sudo "$@"
	[ "$_sudo" ] && shift && set -- "$_sudo" "$@"
	export WRIT_EXECUTION="$_uid" PATH="@PATH@"
	[ -z "$_enter" ] || cd "$_enter" || exit 126
	exec "$_program" "$@"
}

# _not_started WHY [TEXT]: what sudo said is kept if its first line is plain text.
_not_started() {
	_text=${2%%"
"*}
	case $_text in *[!" "-~]* | *"\\"*) _text="" ;; esac
	[ -z "$_text" ] || set -- "said $_text"
	note X "$1"
	reply X "$1"
}

# Whether the login may open so few files that this is why one could not be opened. Asking takes two files.
_has_few_files() {
	case $(ulimit -n) in "" | ? | [12]?) ;; *) return 1 ;; esac
}

# Nothing was started, as a file could not be opened or written.
_no_files() {
	_has_few_files && _not_started files
	_not_started space
}

# Puts the path of sudo in the place of its name, which is the first of these words.
_sudo=""
_find_sudo() {
	[ "$1" = sudo ] && _sudo=$(command -v sudo)
}

# write_end CODE SIGNAL TIME FLAGS: the last line of the journal that counts.
write_end() {
	until note "E $1 $2 $_out $_err $3 -$4 ${_left:--}"; do
		pause 1
	done
}

# The reply of a launch that was quicker than the watchdog.
_answer_early() {
	kill -9 "$_watch"
	_open_output
	_verdict="D S 0 0 $_started $_end $_held"
	_send_end
}

watch() {
	pause 0.2
	eval "$_later"
	watch_on
}

# Waits for the end of the output. The watchdog bounds that; if it is gone, this does.
_await_readers() {
	[ -e "/proc/$_watch/exe" ] || {
		eval "$_later"
		_bound_wait
	}
	wait "$_reader_out"
	_status_out=$?
	wait "$_reader_err"
	_status_err=$?
}

# sudo wanted a password for the question and has written this and nothing else: it did not execute the command.
_judge_sudo() {
	read -r _line <"$_path.e"
	case $_line in
	"sudo: a password is required" | "sudo: interactive authentication is required") ;;
	*) return ;;
	esac
	[ "$_err" != $((${#_line} + 1)) ] || _flags=${_flags}N
}

# The journal is not there any more; standard error still is the file that it was. Sets _answered if the watchdog answers.
_read_what_was_taken() {
	_record=/proc/self/fd/2
	load
	_record="" _answered=$_live
}

# Makes another one that says as much.
_record_again() {
	note S 4194305 0 0 "$_now" || _reply_lost
	[ -z "$_answered" ] || note A
	load
}

# The directory was taken away, too: the command has run, and nothing can be recorded of it.
_reply_lost() {
	exec 4>&- 6>&-
	[ "$_answered" ] && wait "$_watch" && exit
	kill -9 "$_watch"
	eval "$_later"
	conclude
	_open_output
	_send_end
}

# Runs the command as its shell would have: in the foreground, since dash and busybox leave SIGINT and SIGQUIT ignored for
# good in processes that they start with `&`.
supervise() {
	_start_readers
	exec 2>>"$_path.j"
	(
		exec 2>/dev/null 4>&- 6>&-
		watch
	) &
	_watch=$!
	# As sh, bash says nothing of a signal.
	[ -z "$BASH_VERSION" ] || command set +o posix
	(execute "$@")
	_code=$?
	[ -e "$_path.j" ] || _read_what_was_taken
	exec 2>/dev/null
	[ -z "$BASH_VERSION" ] || command set -o posix
	load
	# The journal was taken away while the command ran: that it started stays true. The number is no process.
	[ "$_state$_fence" ] || _record_again
	[ "$_state" = Z ] && reply V
	[ "$_state" = S ] || _no_files
	# 128 and the signal is also what a program may exit with; only after a signal does the shell say something.
	_signal=-
	[ "$_code" -gt 128 ] && [ "$_message" ] && _signal=$((_code - 128))
	now
	_ended=$_now
	note P "$_code" "$_signal" "$_ended"
	exec 4>&- 6>&-
	_await_readers
	written
	_flags=""
	case $_status_out:$_status_err:$_told in
	0:0:) [ $((_out + _err)) -le "$_most" ] || _flags=O ;;
	*)
		eval "$_later"
		_judge_output
		_await_count
		;;
	esac
	[ "$_asks:$_code:$_out" != 1:1:0 ] || _judge_sudo
	write_end "$_code" "$_signal" "$_ended" "$_told$_flags"
	load
	[ "$_live" ] || _answer_early
	wait "$_watch"
	exit
}

_who=S _from_out=0 _from_err=0
# _tell: of an execution that was started already.
_tell() {
	eval "$_later"
	attach follow
}

# The output is told of, too: a command that has taken its journal away is not started again.
[ -e "$_path.j" ] || [ -e "$_path.o" ] && _tell
now
[ "$_boot" = "$1" ] || refuse boot
case $_now in -) refuse clock ;; esac
[ "$_now" -ge "$2" ] || refuse clock
[ "$_now" -le "$3" ] || refuse late
_fenced=$_now _limit=$4 _grace=$5 _most=$6 _drain=$7 _user=$8 _enter=$9
shift 9
_skip=$1
shift

# The command gets the umask of the session back: asked without a process if the kernel tells it (since 4.7).
{ read -r _ && read -r _kind _mask; } </proc/self/status
[ "$_kind" = Umask: ] || _mask=$(umask)
umask 77

# The fence: of all that try, ever, one makes the journal.
set -C
if command exec 9>"$_path.j"; then
	set +C
	exec 9>&-
else
	[ -e "$_path.j" ] && _tell
	_has_few_files && refuse files
	[ -w "$_directory" ] && refuse space
	refuse unwritable
fi
note "F 2 $_boot $_fenced $_limit $_grace $_most $_user $_drain" || {
	_has_few_files && refuse files
	refuse space
}

# sudo that refuses exits 1, as the command may: so it is asked first. If it wants a password for the question (listpw), it
# may allow the command all the same: that shows when it runs.
[ "$_user" = - ] || _said=$(
	shift "$_skip"
	exec sudo -n -l -u "$_user" -- "$@" 2>&1 >/dev/null
) || case $_said in
*"password is required"* | *"authentication is required"*) _asks=1 ;;
*) _not_started sudo "$_said" ;;
esac

_make_pipes && command exec 8>>"$_path.o" && command exec 9>>"$_path.e" || _no_files
# Another user's program opens /dev/stdout by name, too. Only who holds the pipe can find it.
[ "$_user" = - ] || chmod 622 /proc/self/fd/5 /proc/self/fd/7
umask "$_mask"
supervise "$@"
