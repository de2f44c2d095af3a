# The text of every exec request. It reads the request from standard input, and evaluates it only if it is whole.
#
# Each line ends in what separates it from the next one, since they are sent as one line. The text holds no single quote,
# backslash, newline or `!`, so every login shell passes it on unchanged. It stays in the arguments of the processes that
# outlive the start, so it is short, and `pgrep -f` finds it by its words alone: keep docs/interoperation.md true.
#
# Standard input: `WRIT2 NONCE LENGTH SEPARATOR`, a newline, then the script, the separator, and the script again. The
# script starts with `#NONCE` and a newline. LENGTH is that of one script; the separator is a character that the script
# does not have. Two equal scripts of the announced length with the announced nonce cannot come from a request that was
# cut, doubled, reordered or mixed with other text.
#
# Functions, options and variables of the login must not steer what follows: `set` and `unset` come first.
set +aCeuvxmb -f;
unset -f read cat export echo;
_t=$TMOUT;
_p=$PATH;
unset IFS TMOUT _h _n _l _s;
export LC_ALL=C PATH=/bin:/usr/bin;
# The tools of this program may be where only the login finds them (NixOS).
PATH=$PATH:$_p;
IFS="" read -r _h;
set -- $_h;
_n=$2 _l=$3 _s=$4;
IFS=$_s;
set --;
# bash reads by itself what the other shells read by a program.
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
# The second mark confirms the answer. Exit code 93 tells Writ that this request was refused, even if its nonce was lost.
echo "WRIT2:$_n:R cut";
echo "WRIT2:$_n:.";
exit 93
