# Handles the files of many executions. Further arguments: `acknowledge` UID..., `leftovers` LIMIT, or `reap` DAYS.

# Removes the outputs that Writ has stored. The journals stay, because they are the fence.
acknowledge() {
	for _uid in "$@"; do
		shift
		_path=$_uid
		load
		if [ "$_state" = S ] && [ "$_boot" = "$_fence_boot" ] && _supervised; then
			continue
		fi
		set -- "$@" "$_uid.o" "$_uid.e"
	done
	[ "$#" = 0 ] || rm -f "$@" || refuse unwritable
	reply Q
}

# Lists the executions with output.
leftovers() {
	_list="" _count=0
	for _file in ????????-????-????-????-????????????.o; do
		[ -e "$_file" ] || break
		[ "$_count" -lt "$1" ] || break
		_list="$_list ${_file%.o}" _count=$((_count + 1))
	done
	reply "U$_list"
}

# Removes the files of executions whose journal was last written more than DAYS days ago. Perhaps the clock was set
# since. For this boot, the uptime gives the age without the clock, if it is readable. Keeps all other files and
# directories.
reap() {
	now
	_oldest=0
	[ "$_now" = - ] || _oldest=$((_now - $1 * 8640000))
	# shellcheck disable=SC2044 # the names are those that the pattern lets through
	for _path in $(find . ! -name . -prune -type f -name "????????-????-????-????-????????????.j" -mtime "+$1"); do
		_path=${_path%.j}
		load
		# shellcheck disable=SC2086
		set -- $_fence
		if [ "$_boot" = "$_fence_boot" ]; then
			[ "$_now" = - ] && continue
			[ "$3" -gt "$_oldest" ] && continue
		fi
		rm -f "$_path.o" "$_path.e" "$_path.j" || refuse unwritable
	done
	reply Q
}

cd "$_directory" || refuse directory
"$@"
