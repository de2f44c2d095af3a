# Starts the command. If the execution was started before, only reports it.
#
# Further arguments: BOOT-ID NOT-BEFORE LAST-START (hundredths of a second since the machine started) TIME-LIMIT and
# GRACE (hundredths of a second) MOST-OUTPUT (bytes, both streams) DRAIN (hundredths of a second) USER (or -) DIRECTORY
# (or empty) SKIP, then the words to execute. SKIP of these words come before the program.

# Parts that a short command does not need. Their text is evaluated on demand. This saves 0.3 ms of parsing in dash and
# 0.8 ms in bash.
_later='
@LATER@'

# Executes the command in a session of its own, with the pipes as its output, and without other files of the launcher.
# The start is in the journal before the command is executed. If the journal was closed first, the command is not
# executed. Redirections can fail (ulimit -n), so they come before the start. The last redirection needs no new number.
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
	# Restores TMOUT. Only a bash that has TMOUT uses it.
	[ -z "$_t" ] || export TMOUT="$_t"
	# Finds programs of the launcher that only the PATH of the login has. The command gets the fixed PATH.
	_program=setsid
	[ -x /usr/bin/setsid ] || [ -x /bin/setsid ] || _program=$(command -v setsid)
	[ "$_user" = - ] || [ -x /usr/bin/sudo ] || [ -x /usr/local/bin/sudo ] || _find_sudo "$@"
	[ "$_sudo" ] && shift && set -- "$_sudo" "$@"
	export WRIT_EXECUTION="$_uid" PATH="@PATH@"
	[ -z "$_enter" ] || cd "$_enter" || exit 126
	exec "$_program" "$@"
}

# _not_started WHY [TEXT]: keeps the message of sudo if its first line is plain text.
_not_started() {
	_text=${2%%"
"*}
	case $_text in *[!" "-~]* | *"\\"*) _text="" ;; esac
	[ -z "$_text" ] || set -- "said $_text"
	note X "$1"
	reply X "$1"
}

# True if the login's limit of open files is so low that it explains the failure. This check takes two files.
_has_few_files() {
	case $(ulimit -n) in "" | ? | [12]?) ;; *) return 1 ;; esac
}

# A file could not be opened or written, so nothing was started.
_no_files() {
	_has_few_files && _not_started files
	_not_started space
}

# Sets _sudo to the path of sudo, if sudo is the first word.
_sudo=""
_find_sudo() {
	[ "$1" = sudo ] && _sudo=$(command -v sudo)
}

# write_end CODE SIGNAL TIME FLAGS: writes the last journal line that counts.
write_end() {
	until note "E $1 $2 $_out $_err $3 -$4 ${_left:--}"; do
		pause 1
	done
}

# Replies for a command that ended before the watchdog answered.
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

# Waits for the end of the output. The watchdog limits the wait. Without a watchdog, this function limits it.
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

# sudo required a password for the query. If it wrote only this message, it did not execute the command.
_judge_sudo() {
	read -r _line <"$_path.e"
	case $_line in
	"sudo: a password is required" | "sudo: interactive authentication is required") ;;
	*) return ;;
	esac
	[ "$_err" != $((${#_line} + 1)) ] || _flags=${_flags}N
}

# The journal was removed, but standard error is still the same file. Sets _answered if the watchdog answers.
_read_what_was_taken() {
	_record=/proc/self/fd/2
	load
	_record="" _answered=$_live
}

# Writes another journal with the same facts.
_record_again() {
	note S 4194305 0 0 "$_now" || _reply_lost
	[ -z "$_answered" ] || note A
	load
}

# The directory was removed too. The command has run, but cannot be recorded.
_reply_lost() {
	exec 4>&- 6>&-
	[ "$_answered" ] && wait "$_watch" && exit
	kill -9 "$_watch"
	eval "$_later"
	conclude
	_open_output
	_send_end
}

# Runs the command in the foreground, as its own shell would. In dash and busybox, background processes (`&`) always
# ignore SIGINT and SIGQUIT.
supervise() {
	_start_readers
	exec 2>>"$_path.j"
	(
		exec 2>/dev/null 4>&- 6>&-
		watch
	) &
	_watch=$!
	# In posix mode, bash prints no message about a signal.
	[ -z "$BASH_VERSION" ] || command set +o posix
	(execute "$@")
	_code=$?
	[ -e "$_path.j" ] || _read_what_was_taken
	exec 2>/dev/null
	[ -z "$BASH_VERSION" ] || command set -o posix
	load
	# The journal was removed while the command ran. Records the start again, with a number that no process has.
	[ "$_state$_fence" ] || _record_again
	[ "$_state" = Z ] && reply V
	[ "$_state" = S ] || _no_files
	# A program can also exit with 128 plus a signal number. The shell prints a message only after a signal.
	_signal=-
	[ "$_code" -gt 128 ] && [ "$_message" ] && _signal=$((_code - 128))
	now
	_ended=$_now
	note P "$_code" "$_signal" "$_ended"
	exec 4>&- 6>&-
	_await_readers
	written
	_flags=""
	case $_status_out:$_status_err:$_signals_sent in
	0:0:) [ $((_out + _err)) -le "$_most" ] || _flags=O ;;
	*)
		eval "$_later"
		_judge_output
		_await_count
		;;
	esac
	[ "$_asks:$_code:$_out" != 1:1:0 ] || _judge_sudo
	write_end "$_code" "$_signal" "$_ended" "$_signals_sent$_flags"
	load
	[ "$_live" ] || _answer_early
	wait "$_watch"
	exit
}

_who=S _from_out=0 _from_err=0
# _tell: reports an execution that was started before.
_tell() {
	eval "$_later"
	attach follow
}

# Output alone is reported too, so a command that removed its journal does not start again.
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

# Restores the umask of the session for the command. From Linux 4.7 on the kernel reports it, without another process.
{ read -r _ && read -r _kind _mask; } </proc/self/status
[ "$_kind" = Umask: ] || _mask=$(umask)
umask 77

# The fence: of all processes that ever try, exactly one creates the journal.
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

# sudo exits with 1 if it refuses, and the command can exit with 1 too. So sudo is queried first. If sudo requires a
# password for the query (listpw), it can still allow the command. The execution then shows if sudo does.
[ "$_user" = - ] || _said=$(
	shift "$_skip"
	exec sudo -n -l -u "$_user" -- "$@" 2>&1 >/dev/null
) || case $_said in
*"password is required"* | *"authentication is required"*) _asks=1 ;;
*) _not_started sudo "$_said" ;;
esac

_make_pipes && command exec 8>>"$_path.o" && command exec 9>>"$_path.e" || _no_files
# The program of another user can open /dev/stdout by name. Only processes that hold the pipe can find the pipe.
[ "$_user" = - ] || chmod 622 /proc/self/fd/5 /proc/self/fd/7
umask "$_mask"
supervise "$@"
