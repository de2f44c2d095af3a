#!/bin/sh
# The login shell of the laboratory's SSH server, or its ForceCommand. It records each request and then runs it.
#
# For each invocation, it appends one record to the file $WRIT_LAB_LEDGER: the unchanged arguments, and a line with only
# the name of the run, $WRIT_LAB_RUN. This name is random, so no command contains such a line by chance. Tests use the
# records as proof: a command without a record did not run. Benchmarks run commands through this shell, so it escapes
# nothing (escaping 150 lines in sh cost 4 ms) and forks only for the launcher.
#
# The text of a launcher request is constant. The script and its words arrive on standard input. For such a request the
# record continues with a newline and one unchanged copy of the script. asked.rs reads these records.

if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then
	# A ForceCommand gets the command in this variable, and a login shell in its arguments.
	set -- -c "$SSH_ORIGINAL_COMMAND"
	unset SSH_ORIGINAL_COMMAND
fi

lab_record=$* lab_input=""
case ${2-} in
"set +aCeuvxmb -f;"* | "exec /bin/sh -c 'set +aCeuvxmb -f;"*)
	# The dot keeps the newlines at the end.
	lab_input=$(cat; echo .)
	lab_input=${lab_input%.}
	# The header's last word is the separator between the two copies of the script.
	lab_script=${lab_input#*"
"}
	lab_separator=${lab_input%%"
"*}
	lab_separator=${lab_separator##* }
	case $lab_separator in ?) lab_script=${lab_script%%"$lab_separator"*} ;; esac
	lab_record="$lab_record
$lab_script"
	;;
esac

# One string, so that dash makes one write of it, because sessions append concurrently.
printf '%s' "$lab_record
$WRIT_LAB_RUN
" >>"$WRIT_LAB_LEDGER"

# sshd uses the home in /etc/passwd, but each server of the laboratory has its own home.
cd "$HOME" || exit 1
unset OLDPWD
case ${WRIT_LAB_SHELL:=/bin/sh} in
*/busybox) set -- sh "$@" ;;
esac
[ "$lab_input" ] || exec "$WRIT_LAB_SHELL" "$@"

# bash opens /dev/stdin again and would read a file from its start, so the input must stay a pipe. A here-document is a
# pipe, and this process can hold both of its ends. The writer is a child of init, and holds nothing of the session.
exec 8<<_
line
_
read -r _ <&8
exec 9>/proc/self/fd/8
(
	(
		exec >&9 2>/dev/null 8<&- 9>&-
		printf '%s' "$lab_input"
	) &
)
unset lab_input lab_record lab_script lab_separator
exec "$WRIT_LAB_SHELL" "$@" <&8 8<&- 9>&-
