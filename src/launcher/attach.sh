# Telling of an execution. Starts nothing.

# tell MODE: of an execution that does not run any more; `follow` wants the bytes, too, `poll` does not.
tell() {
	conclude
	[ "$1" = poll ] && reply "p $_verdict"
	_open_output
	_send_end
}

# attach MODE
attach() {
	_who=A
	[ -e "$_path.j" ] || {
		[ -e "$_path.o" ] || reply N
		# Output without a journal: somebody took the journal away.
		load
		tell "$1"
	}
	load
	# From the fence to the start it takes some milliseconds, and a second or two if the machine is very busy. From the exit
	# to the end it may take longer, but not if nobody is left to write the end.
	_looks=0
	while [ "$_looks" -lt 30 ] && [ "$_boot" = "${_fence_boot:-$_boot}" ]; do
		case $_state:$_exit in
		:*) ;;
		S:?*) _supervised || [ "$_looks" -ge 5 ] && break ;;
		*) break ;;
		esac
		pause 0.1
		load
		_looks=$((_looks + 1))
	done
	if [ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ]; then
		if _supervised; then
			now
			[ "$1" = poll ] && reply "p A $_who 0 0 $_started $_now $_group"
			follow
		fi
		# It may have ended since the journal was read.
		load
	fi
	case $_state in
	X) reply "X $_why" ;;
	Z) reply V ;;
	"") [ "$_boot" = "${_fence_boot:-$_boot}" ] && reply B ;;
	esac
	tell "$1"
}
