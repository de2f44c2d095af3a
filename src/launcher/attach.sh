# Reports an execution. Starts nothing.

# report MODE: reports an execution that does not run any more. Mode `follow` sends its output too, mode `poll` does
# not.
report() {
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
		# There is output without a journal, because somebody removed the journal.
		load
		report "$1"
	}
	load
	# The step from the fence to the start takes some milliseconds, and a second or two if the machine is very busy. The
	# step from the exit to the end may take longer, but only while a process is left to write the end.
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
		# The execution may have ended since the journal was read.
		load
	fi
	case $_state in
	X) reply "X $_why" ;;
	Z) reply V ;;
	"") [ "$_boot" = "${_fence_boot:-$_boot}" ] && reply B ;;
	esac
	report "$1"
}
