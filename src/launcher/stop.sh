# Ends a running execution. Further argument: GRACE (hundredths of a second). An execution that has not started is
# closed. An execution that has ended is reported, and processes that it left behind keep running.
_from_out=0 _from_err=0
[ -e "$_path.j" ] && load
umask 77
now
[ -z "$_state" ] && note && note "Z $_now" && load
[ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ] || attach poll

if _supervised; then
	_mine=""
else
	load
	[ "$_state" = S ] || attach poll
	_mine=1
fi
now
note "K $_now"
_plain_grep
finish "$1"
note "R $_left"
if [ "$_mine" ]; then
	_remaining=$_left
	load
	if [ "$_state" = S ]; then
		lengths 999999999999999 999999999999999
		now
		# shellcheck disable=SC2086
		set -- ${_exit:-- -}
		note "E $1 $2 $_out $_err $_now -${_signals_sent}R $_remaining"
	fi
	_left=$_remaining
fi
reply "K $_left"
