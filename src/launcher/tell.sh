# Further arguments: `follow` or `poll`, and how many bytes of each stream the reader has.
_from_out=$2 _from_err=$3
attach "$1"
