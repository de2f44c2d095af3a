# Inspects the machine, once for each connection. Creates the directory if it does not exist.
#
# Argument: DIRECTORY (empty: the default in the user's home).
_directory=$1

for _tool in setsid cat sleep dd wc grep tr find rm mkdir ls readlink mkfifo /usr/bin/env; do
	command -v "$_tool" >/dev/null || refuse tool "$_tool"
done
{ read -r _ _offset </proc/self/fdinfo/1 && read -r _boot </proc/sys/kernel/random/boot_id; } || refuse proc

if [ -z "$_directory" ]; then
	[ "$HOME" ] || refuse directory
	_directory=$HOME/.local/state/writ
fi
# A reply is one line, so the path must not contain a line break.
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
# A user who can write here could remove a fence.
case $(ls -ld "$_directory") in
d????-??-*) ;;
*) refuse directory ;;
esac
printable

# The first process names the directory: only the first line counts.
if read -r _identity <id; then :; else
	read -r _identity </proc/sys/kernel/random/uuid
	echo "$_identity" >>id
fi
read -r _identity <id || {
	[ -w . ] && refuse space
	refuse unwritable
}

# A login shell that reads these scripts saves a second shell. The user database has the user's shell, but $SHELL can be
# wrong. If a number has several entries, sshd can have used any of them.
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

# If systemd kills the processes of a login, a command does not outlive its connection.
_ends=0
if [ -d /run/systemd/system ] && command -v loginctl >/dev/null; then
	case $(loginctl show-user -p KillUserProcesses) in *=yes) _ends=1 ;; esac
fi

now
[ "$_now" = - ] && refuse clock
# One write, as in `answer`. `echo` of dash would interpret backslashes.
printf "%s\\n" "WRIT2:$_nonce:P $_boot $_now $_identity $_direct $_ends $_directory"
answer .
exit
