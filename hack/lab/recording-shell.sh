#!/bin/sh
# The login shell of the laboratory's SSH server, or its ForceCommand: writes down what it is asked to run, then runs it.
#
# For each invocation, one record is appended to the file $WRIT_LAB_LEDGER: the arguments as they are, then a line with
# nothing but the name of the run, $WRIT_LAB_RUN. That name is random, so no command contains such a line by chance.
# This is the oracle of the tests (what was not asked of this shell was not run). Commands are timed through it, so it has
# no escaping (escaping 150 lines in sh cost 4 ms), and forks only for the launcher.
#
# The text of a launcher's request is constant, and the script and its words come by standard input. For such a request the
# record goes on with a newline and the script as it came, once. See asked.rs for what reads that.

if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then
	# As ForceCommand we get the command in this variable; as login shell, in the arguments.
	set -- -c "$SSH_ORIGINAL_COMMAND"
	unset SSH_ORIGINAL_COMMAND
fi

lab_record=$* lab_input=""
case ${2-} in
"set +aCeuvxmb -f;"* | "exec /bin/sh -c 'set +aCeuvxmb -f;"*)
	# The dot keeps the newlines at the end.
	lab_input=$(cat; echo .)
	lab_input=${lab_input%.}
	# The header's last word is the separator, which stands between the two copies of the script.
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

# All in one string, so that dash makes one write of it: sessions append at the same time.
printf '%s' "$lab_record
$WRIT_LAB_RUN
" >>"$WRIT_LAB_LEDGER"

# sshd went to the home in /etc/passwd; each server of the laboratory has one of its own.
cd "$HOME" || exit 1
unset OLDPWD
case ${WRIT_LAB_SHELL:=/bin/sh} in
*/busybox) set -- sh "$@" ;;
esac
[ "$lab_input" ] || exec "$WRIT_LAB_SHELL" "$@"

# bash opens /dev/stdin again, and would read a file from its start: so the input stays a pipe. A here-document is one, at
# both of whose ends this process can be. The writer is nobody's child, and holds nothing of the session.
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
