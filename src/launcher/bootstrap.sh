# Text of every exec request. It reads the request from standard input, and evaluates only a complete request.
#
# Each line ends with its separator, because all lines are sent as one. The text has no single quote, backslash, newline
# or `!`, so every login shell passes it on unchanged. The text stays in the arguments of processes that outlive the
# start, so it is short. `pgrep -f` finds it by its words: keep docs/interoperation.md true.
#
# Standard input: `WRIT2 NONCE LENGTH SEPARATOR`, a newline, then the script, the separator, and the script again. The
# script starts with `#NONCE` and a newline. LENGTH is the length of one script. The script does not contain the
# separator. A request that was truncated, doubled, reordered or mixed with other text cannot contain two equal scripts
# with the announced length and nonce.
#
# Functions, options and variables of the login must not affect the rest, so `set` and `unset` come first.
set +aCeuvxmb -f;
unset -f read cat export echo;
_t=$TMOUT;
_p=$PATH;
unset IFS TMOUT _h _n _l _s;
export LC_ALL=C PATH=/bin:/usr/bin;
# On NixOS, only the PATH of the login has the tools of this program.
PATH=$PATH:$_p;
IFS="" read -r _h;
set -- $_h;
_n=$2 _l=$3 _s=$4;
IFS=$_s;
set --;
# bash reads the file itself. The other shells need a program.
case $BASH_VERSION in ?*) set -- $(</dev/stdin) ;; esac;
case $# in 0) set -- $(cat) ;; esac;
unset IFS;
set +f;
case "$_h ${#_n} ${#_s} ${#1} $#" in
"WRIT2 $_n $_l $_s 32 1 $_l 2")
case $1 in
"$2")
case $1 in
"#$_n"*)
eval "$1";
exit ;;
esac ;;
esac ;;
esac;
# The second marker confirms the answer. Exit code 93 tells Writ that this request was refused, even if its nonce was
# lost.
echo "WRIT2:$_n:R cut";
echo "WRIT2:$_n:.";
exit 93
