# Start of every request: cleans the environment, sets up the channel, and defines the form of replies.
#
# Argument: NONCE. Each part removes its own arguments from the list.
#
# Variables start with `_`, so that the launcher changes no variable of the command. If the shell or /proc can answer a
# question, no program runs for it, because a program takes 0.5 to 1 ms.
#
# If a start-up file replaced the shell (`exec dash`), the new shell reads the request as its own script, without any
# check. That shell has no _n, which the bootstrap sets.
case $_n in "$1") ;; *) exit 93 ;; esac
exec 3>&2 2>/dev/null </dev/null
# Removes the functions and options that bash takes from the environment. Two bash variables are read-only. If the login
# has given BASH_VERSION to another shell, `command` keeps that shell from exiting at an unknown option.
unset -f command
case $BASH_VERSION in
?*)
	command unset -f [ : . @COMMANDS@
	command export -n SHELLOPTS BASHOPTS
	command set -o posix
	;;
esac
# If a start-up file redirected standard error to standard output (`exec 2>&1`), the client would read two streams as
# one.
[ /proc/self/fd/1 -ef /proc/self/fd/3 ] && exec 3>/dev/null
unset @VARIABLES@
PATH=/bin:/usr/bin:@PATH@
# The PATH of the login comes last, for the tools of this program only. The bootstrap has kept it.
PATH=$PATH:$_p
# The login can export variables with names that are used here.
unset @OWN@
_nonce=$1
shift

# answer LINE: writes a line with the mark to standard output. The mark is composed here, so that a shell that prints
# the script does not print the mark. If the client is gone, this process ends.
answer() {
	echo "WRIT2:$_nonce:$*" || exit
}

# reply LINE: writes an answer that is the whole reply. The last mark confirms that the line before it is not mixed with
# other text.
reply() {
	answer "$@"
	answer .
	exit
}

# refuse WHY: replies that this request started nothing.
refuse() {
	reply R "$@"
}

# Sets _now to hundredths of a second since the machine started, or to `-` if /proc/uptime is not readable or malformed.
# A file system in user space (lxcfs) may provide the file.
now() {
	_reading=""
	read -r _reading _ </proc/uptime
	case $_reading in
	*[!0-9.]* | *.*.* | .* | ????????????????*) _now=- ;;
	?*.[0-9][0-9])
		_now=${_reading%.*}${_reading#*.}
		while :; do
			case $_now in 0?*) _now=${_now#0} ;; *) break ;; esac
		done
		;;
	*) _now=- ;;
	esac
}
