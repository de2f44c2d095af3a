# What there is to know of a machine, once for each connection. Makes the directory if it is not there.
#
# Argument: DIRECTORY (empty: the one of the user).
_directory=$1

for _tool in setsid cat sleep dd wc grep tr find rm mkdir ls readlink mkfifo /usr/bin/env; do
	command -v "$_tool" >/dev/null || refuse tool "$_tool"
done
{ read -r _ _offset </proc/self/fdinfo/1 && read -r _boot </proc/sys/kernel/random/boot_id; } || refuse proc

if [ -z "$_directory" ]; then
	[ "$HOME" ] || refuse directory
	_directory=$HOME/.local/state/writ
fi
# A reply is one line, so no path of its own may break it.
printable() {
	case $_directory in *[[:cntrl:]]*) refuse directory ;; esac
}

printable
umask 77
[ -d "$_directory" ] || _said=$(mkdir -p "$_directory" 2>&1) || {
	_said=${_said%%"
"*}
	case $_said in "" | *[!" "-~]* | *"\\"*) refuse directory ;; esac
	refuse said "$_said"
}
[ -L "$_directory" ] && refuse directory
[ -d "$_directory" ] && [ -O "$_directory" ] && cd "$_directory" && _directory=$(pwd -P) || refuse directory
# Whoever else may write here could take a fence away.
case $(ls -ld "$_directory") in
d????-??-*) ;;
*) refuse directory ;;
esac
printable

# Whoever comes first names the directory: the first line counts.
if read -r _identity <id; then :; else
	read -r _identity </proc/sys/kernel/random/uuid
	echo "$_identity" >>id
fi
read -r _identity <id || {
	[ -w . ] && refuse space
	refuse unwritable
}

# A login shell that reads this language is spared a second one. The user's shell stands in the user database; $SHELL may
# have been set since. Of several entries for one number, sshd may have used any.
_shell="" _direct=0
_find_shell() {
	while IFS=: read -r _ _ _entry _ _ _ _program; do
		[ "$_entry" = "$_number" ] || continue
		_program=${_program:-/bin/sh}
		[ "${_shell:-$_program}" = "$_program" ] || _program=several
		_shell=$_program
	done
}
while read -r _kind _number _; do
	[ "$_kind" = Uid: ] && break
done </proc/self/status
_entries=$(getent passwd "$_number"; cat /etc/passwd)
_find_shell <<_
$_entries
_
[ -z "$_shell" ] || case $(readlink -f "$_shell") in */dash | */busybox) _direct=1 ;; esac

# Where systemd ends what a login leaves behind, a command does not outlive its connection.
_ends=0
if [ -d /run/systemd/system ] && command -v loginctl >/dev/null; then
	case $(loginctl show-user -p KillUserProcesses) in *=yes) _ends=1 ;; esac
fi

now
[ "$_now" = - ] && refuse clock
# One write, as `answer` does, but `echo` of dash reads backslashes.
printf "%s\\n" "WRIT2:$_nonce:P $_boot $_now $_identity $_direct $_ends $_directory"
answer .
exit
