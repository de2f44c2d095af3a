# Further arguments: `follow` or `poll`, the number of bytes of each stream that the client has, and the maximum frame.
_from_out=$2 _from_err=$3
_frame=${4:-$_frame}
attach "$1"
