# The files of many executions. Further arguments: `acknowledge` UID..., `leftovers` LIMIT, or `reap` DAYS.

# Outputs that have arrived. The journals stay: they are the fence.
acknowledge() {
	for _uid in "$@"; do
		shift
		_path=$_uid
		load
		if [ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ] && supervised; then
			continue
		fi
		set -- "$@" "$_uid.o" "$_uid.e"
	done
	[ "$#" = 0 ] || rm -f "$@" || refuse unwritable
	answer Q
}

# Executions whose output is there.
leftovers() {
	_list="" _count=0
	for _file in *.o; do
		[ -e "$_file" ] || break
		[ "$_count" -lt "$1" ] || break
		_list="$_list ${_file%.o}" _count=$((_count + 1))
	done
	answer "U$_list"
}

# What was last written to so many days ago: of an execution, that is the journal.
reap() {
	find . -type f -name "*.[joe]" -mtime "+$1" -exec rm -f {} + || refuse unwritable
	answer Q
}

cd "$_directory" || refuse directory
"$@"
