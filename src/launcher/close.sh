# Makes sure that the execution is not started any more, by the fence itself; tells of what there is already.
_from_out=0 _from_err=0
if [ -e "$_path.j" ]; then
	load
else
	umask 77
	set -C
	# Whoever comes second here finds what the first has made.
	command exec 7>"$_path.j"
	set +C
	load
fi
if [ -z "$_state" ]; then
	now
	# The empty line ends one that was torn off when a disk was full.
	note && note "Z $_now"
	load
fi
[ "$_state" ] || refuse space
attach poll
