#!/bin/sh
# The login shell of the laboratory's SSH server, or its ForceCommand: writes down what it is asked to run, then runs it.
#
# For each invocation, one record is appended to the file $WRIT_LAB_LEDGER: the arguments as they are, then a line with
# nothing but the name of the run, $WRIT_LAB_RUN. That name is random, so no command contains such a line by chance.
# This is the oracle of the tests (what was not asked of this shell was not run), and it is in the way of every command
# that is timed: so there is no fork and no escaping in it (escaping 150 lines in sh cost 4 ms).

if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then
	# As ForceCommand we get the command in this variable; as login shell, in the arguments.
	set -- -c "$SSH_ORIGINAL_COMMAND"
	unset SSH_ORIGINAL_COMMAND
fi

# All in one string, so that dash makes one write of it: sessions append at the same time.
printf '%s' "$*
$WRIT_LAB_RUN
" >>"$WRIT_LAB_LEDGER"

# sshd went to the home in /etc/passwd; each server of the laboratory has one of its own.
cd "$HOME" || exit 1
unset OLDPWD
case ${WRIT_LAB_SHELL:=/bin/sh} in
*/busybox) set -- sh "$@" ;;
esac
exec "$WRIT_LAB_SHELL" "$@"
