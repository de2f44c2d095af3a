# The start of every request: a clean environment, the channel, and the form of replies.
#
# Argument: NONCE. Each part takes its own arguments off the list.
#
# Variables start with `_`, so that the command sees none of its own changed. No program runs if the shell or /proc
# can answer: a program costs 0.5 to 1 ms.
#
# A shell that a start-up file has become (`exec dash`) reads the request as its own script, and checks nothing. It has not
# set _n, as the bootstrap has.
case $_n in "$1") ;; *) exit 93 ;; esac
exec 3>&2 2>/dev/null </dev/null
# The functions and options that bash takes from the environment. Two of its variables are read-only. `command` keeps
# another shell, to which the login has given this variable, from ending at what it does not know.
unset -f command
case $BASH_VERSION in
?*)
	command unset -f [ : . @COMMANDS@
	command export -n SHELLOPTS BASHOPTS
	command set -o posix
	;;
esac
# A start-up file may have sent standard error into standard output (`exec 2>&1`): two streams would be read as one there.
[ /proc/self/fd/1 -ef /proc/self/fd/3 ] && exec 3>/dev/null
unset @VARIABLES@
PATH=/bin:/usr/bin:@PATH@
# Behind it that of the login, for the tools of this program only. The bootstrap has kept it.
PATH=$PATH:$_p
# The login may have exported a variable of a name that is used here.
unset @OWN@
_nonce=$1
shift

# answer LINE: on standard output, behind the mark. The mark is put together here, so that a shell that prints our text
# does not print the mark. A reader that is gone ends this process.
answer() {
	echo "WRIT2:$_nonce:$*" || exit
}

# reply LINE: an answer that is the whole reply. The last mark says that nothing was mixed into the line before it.
reply() {
	answer "$@"
	answer .
	exit
}

# refuse WHY: this request started nothing.
refuse() {
	reply R "$@"
}

# Sets _now: hundredths of a second since the machine started, or `-` if /proc/uptime is not readable or holds something
# else. A file system in user space (lxcfs) may stand behind it.
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
