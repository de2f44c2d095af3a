# Prevents the execution from starting, by creating the fence itself. Reports an execution that is known already.
_from_out=0 _from_err=0
if [ -e "$_path.j" ]; then
	load
else
	umask 77
	set -C
	# Only one of several processes creates the file.
	command exec 7>"$_path.j"
	set +C
	load
fi
if [ -z "$_state" ]; then
	now
	# The empty line ends a line that was truncated by a full disk.
	note && note "Z $_now"
	load
fi
[ "$_state" ] || refuse space
attach poll
