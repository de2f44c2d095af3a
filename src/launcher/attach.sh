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
	# From the fence to the start it takes some milliseconds. From the exit to the end it may take longer, but not if nobody
	# is left to write the end.
	for _ in 1 2 3 4 5; do
		[ "$_boot" = "${_fence_boot:-$_boot}" ] || break
		case $_state:$_exit in
		:*) ;;
		S:?*) _supervised && break ;;
		*) break ;;
		esac
		pause 0.1
		load
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
