# Ends an execution that runs. Further argument: GRACE (hundredths of a second). One that has not started is closed; one
# that has ended is told of, and what it left behind is left alone.
_from_out=0 _from_err=0
[ -e "$_path.j" ] && load
umask 77
[ -z "$_state" ] && echo Z >>"$_path.j" && load
[ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ] || attach poll

if supervised; then
	_mine=1
else
	load
	[ "$_state" = S ] || attach poll
	_mine=""
fi
now
echo "K $_now" >>"$_path.j"
finish "$1"
echo "R $_left" >>"$_path.j"
if [ -z "$_mine" ]; then
	_remaining=$_left
	load
	if [ "$_state" = S ]; then
		lengths 999999999999999 999999999999999
		now
		echo "E - - $_out $_err $_now -$_told $_remaining" >>"$_path.j"
	fi
	_left=$_remaining
fi
answer "K $_left"
