# What there is to know of a machine, once for each connection. Makes the directory where it is not there.
#
# Arguments: NONCE DIRECTORY (empty: the one of the user).
{ set +efux; } 2>/dev/null
unset IFS
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 2>/dev/null
_nonce=$1
_directory=$2

answer() {
	echo "WRIT:$_nonce:$*"
}

refuse() {
	answer R "$@"
	exit
}

for _tool in /usr/bin/env setsid sleep dd wc grep find rm mkdir ls readlink; do
	command -v "$_tool" >/dev/null || refuse tool "$_tool"
done
{ read -r _ _offset </proc/self/fdinfo/1 && read -r _boot </proc/sys/kernel/random/boot_id; } || refuse proc

if [ -z "$_directory" ]; then
	[ -n "$HOME" ] || refuse directory
	_directory=$HOME/.local/state/writ
fi
# A reply is one line, so no path of its own may break it.
printable() {
	case $_directory in *[[:cntrl:]]*) refuse directory ;; esac
}

printable
umask 77
[ -d "$_directory" ] || mkdir -p "$_directory"
[ -L "$_directory" ] && refuse directory
[ -d "$_directory" ] && [ -O "$_directory" ] && cd "$_directory" && _directory=$(pwd -P) || refuse directory
# Whoever else may write here could take a fence away.
case $(ls -ld "$_directory") in
d????-??-*) ;;
*) refuse directory ;;
esac
printable

# Who comes first names the directory: the first line counts.
if read -r _identity <id; then :; else
	read -r _identity </proc/sys/kernel/random/uuid
	echo "$_identity" >>id
fi
read -r _identity <id || {
	[ -w . ] && refuse space
	refuse unwritable
}

# A login shell that reads this language is spared a second one.
_direct=0
_shell=$(readlink -f "$SHELL")
case ${_shell##*/} in dash | busybox) _direct=1 ;; esac

# Where systemd ends what a login leaves behind, a command does not outlive its connection.
_ends=0
if [ -d /run/systemd/system ] && command -v loginctl >/dev/null; then
	case $(loginctl show-user -p KillUserProcesses) in *=yes) _ends=1 ;; esac
fi

read -r _now _ </proc/uptime
_now=${_now%.*}${_now#*.}
printf %s "WRIT:$_nonce:P $_boot $_now $_identity $_direct $_ends $_directory"
echo
