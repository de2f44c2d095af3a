# The output of a command: two pipes, and a reader for each pipe that writes the file.
#
# Files of the supervisor: 3 is the standard error of the channel. 4 and 6 are the writing ends of the pipes for
# standard output and standard error, 5 and 7 are their reading ends. 8 and 9 are the output files. dash knows no number
# above 9.

# Creates the pipes. In dash, in busybox and in bash from 5.1 on, a here-document is a pipe and needs no process. In
# other shells it is a file, and mkfifo creates the pipes.
_make_pipes() {
	command exec 5<<_ 7<<_ || return
line
_
line
_
	if [ -p /proc/self/fd/5 ] && [ -p /proc/self/fd/7 ]; then
		read -r _ <&5 && read -r _ <&7
		command exec 4>/proc/self/fd/5 && command exec 6>/proc/self/fd/7
	else
		mkfifo "$_path.1" "$_path.2" &&
			command exec 5<>"$_path.1" && command exec 7<>"$_path.2" &&
			command exec 4>"$_path.1" && command exec 6>"$_path.2" &&
			command exec 5<"$_path.1" && command exec 7<"$_path.2"
		_status=$?
		rm -f "$_path.1" "$_path.2"
		return "$_status"
	fi
}

# Runs in a reader. Limits the file to the maximum output, in blocks of 512 bytes. A lower soft limit of the login would
# truncate the output, so it is raised. A hard limit stays. At the limit, the reader ends with an error, not a signal.
_limit_file() {
	trap "" XFSZ
	ulimit -S -f "$((_most / 512 + 1))" || ulimit -S -f "$(ulimit -H -f)"
}

# Starts the readers. The supervisor keeps the reading ends open, so the death of a reader does not end the command.
_start_readers() {
	(
		exec <&5 >&8 3>&- 4>&- 5<&- 6>&- 7<&- 8>&- 9>&-
		_limit_file
		exec cat
	) &
	_reader_out=$!
	(
		exec <&7 >&9 3>&- 4>&- 5<&- 6>&- 7<&- 8>&- 9>&-
		_limit_file
		exec cat
	) &
	_reader_err=$!
}

# written: sets _out and _err to the number of bytes in the files.
written() {
	read -r _ _out </proc/self/fdinfo/8
	read -r _ _err </proc/self/fdinfo/9
}

