# Sends the output from the client's offset on.
#
# Each stream has its own frames: `C OFFSET LENGTH`, then LENGTH bytes, then the next mark. Output is never searched for
# a mark. Foreign bytes (of a background job of a start-up file) shift the next mark. `+` is a mark without content.

# Maximum frame, in bytes. Writ holds one frame until the next mark arrives.
_frame=1048576

# _copy COUNT: copies COUNT bytes from standard input to standard output, and no more, because the file can grow. COUNT
# is below 65536 or a multiple of 65536.
_copy() {
	if [ "$1" -lt 65536 ]; then
		dd bs="$1" count=1
	else
		dd bs=65536 count=$(($1 / 65536))
	fi
}

# _send FROM TO: sends frames of the file at standard input, whose position is FROM. Sets _sent.
_send() {
	_sent=$1
	while [ "$_sent" -lt "$2" ]; do
		_count=$(($2 - _sent))
		[ "$_count" -le "$_frame" ] || _count=$_frame
		[ "$_count" -lt 65536 ] || _count=$((_count / 65536 * 65536))
		answer C "$_sent" "$_count"
		_copy "$_count" || exit
		_sent=$((_sent + _count))
	done
	# The mark after the last frame confirms it.
	answer +
}

# _seek OFFSET: moves standard input to this offset.
_seek() {
	[ "$1" = 0 ] || dd bs=1 skip="$1" count=0 >/dev/null
}

# Opens the output as files 5 and 6, at the client's offset.
_open_output() {
	_sent_out=$_from_out _sent_err=$_from_err
	command exec 5<"$_path.o" && command exec 6<"$_path.e" || return
	_seek "$_from_out" <&5
	_seek "$_from_err" <&6
}

# _send_output OUT ERR: sends the output up to these offsets.
_send_output() {
	[ "$1" -le "$_sent_out" ] || { _send "$_sent_out" "$1" <&5 && _sent_out=$_sent; }
	[ "$2" -le "$_sent_err" ] || { _send "$_sent_err" "$2" <&6 >&3 && _sent_err=$_sent; }
}

# Sends the remaining output, the verdict, and the last mark of each stream.
_send_end() {
	_send_output "$_out" "$_err"
	answer . >&3
	reply "$_verdict"
}

