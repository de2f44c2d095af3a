# Reports an execution. Starts nothing.

# report MODE: reports an execution that no longer runs. Mode `follow` also sends its output, mode `poll` does not.
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
	# From the fence to the start it takes milliseconds, or one or two seconds if the machine is very busy. From the exit
	# to the end it can take longer, but only while a process runs that writes the end.
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
		# Perhaps the execution ended after the journal was read.
		load
	fi
	case $_state in
	X) reply "X $_why" ;;
	Z) reply V ;;
	"") [ "$_boot" = "${_fence_boot:-$_boot}" ] && reply B ;;
	esac
	report "$1"
}
