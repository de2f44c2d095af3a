#!/bin/sh
# The login shell of the laboratory's SSH server, or its ForceCommand: writes down what it is asked to run, then runs it.
#
# One line for each invocation, in the file $WRIT_LAB_LEDGER: the arguments, with \ as \\ and a newline as \n. It is
# the oracle of the tests (what was not asked of this shell was not run), and it is in the way of every command that
# is timed, so it does without a single fork.

if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then
	# As ForceCommand we get the command in this variable; as login shell, in the arguments.
	set -- -c "$SSH_ORIGINAL_COMMAND"
	unset SSH_ORIGINAL_COMMAND
fi

# escape PLAIN ESCAPED: replaces every PLAIN in $line.
escape() {
	rest=$line
	line=
	while :; do
		case $rest in
		*"$1"*)
			line=$line${rest%%"$1"*}$2
			rest=${rest#*"$1"}
			;;
		*) break ;;
		esac
	done
	line=$line$rest
}

newline='
'
line=$*
case $line in *\\*) escape \\ \\\\ ;; esac
case $line in *"$newline"*) escape "$newline" '\n' ;; esac
# The newline goes into the same string, so that dash makes one write of it: sessions append at the same time.
printf '%s' "$line$newline" >>"${WRIT_LAB_LEDGER:-/dev/null}"
unset line rest newline
unset -f escape

# sshd went to the home in /etc/passwd; each server of the laboratory has one of its own.
cd "$HOME" || exit 1
unset OLDPWD
exec /bin/sh "$@"
