# Ends an execution that runs. Further argument: GRACE (hundredths of a second). One that has not started is closed; one
# that has ended is told of, and what it left behind is left alone.
_from_out=0 _from_err=0
[ -e "$_path.j" ] && load
umask 77
now
[ -z "$_state" ] && note && note "Z $_now" && load
[ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ] || attach poll

if _supervised; then
	_mine=1
else
	load
	[ "$_state" = S ] || attach poll
	_mine=""
fi
now
note "K $_now"
finish "$1"
note "R $_left"
if [ -z "$_mine" ]; then
	_remaining=$_left
	load
	if [ "$_state" = S ]; then
		lengths 999999999999999 999999999999999
		now
		note "E - - $_out $_err $_now -$_told $_remaining"
	fi
	_left=$_remaining
fi
answer "K $_left"
