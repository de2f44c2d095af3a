# Telling of an execution. Starts nothing.

# tell MODE: of an execution that runs no more; `follow` wants the bytes, too, `poll` does not.
tell() {
	conclude
	if [ "$1" = poll ]; then
		answer "p $_verdict"
	else
		answer "$_verdict"
		answer 2 >&3
		_open_output
		_send_output "$_out" "$_err"
	fi
}

# attach MODE
attach() {
	_who=A
	[ -e "$_path.j" ] || {
		# Output without a journal: somebody took that away.
		if [ -e "$_path.o" ]; then
			load
			tell "$1"
		else
			answer N
		fi
		exit
	}
	load
	# From the fence to the start it takes some milliseconds.
	for _ in 1 2 3 4 5; do
		[ -z "$_state" ] && [ "$_boot" = "${_fence_boot:-$_boot}" ] || break
		pause 0.1
		load
	done
	if [ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ]; then
		if _supervised; then
			now
			if [ "$1" = poll ]; then
				answer "p A $_who 0 0 $_started $_now $_group"
			else
				stream
				wait "$_follower"
				kill -9 "$_listener"
			fi
			exit
		fi
		# It may have ended since it was read.
		load
	fi
	case $_state in
	X) answer "X $_why" ;;
	Z) answer V ;;
	"") [ "$_boot" = "${_fence_boot:-$_boot}" ] && answer B || tell "$1" ;;
	*) tell "$1" ;;
	esac
	exit
}
