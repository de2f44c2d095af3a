# What a machine says of itself, for people to read. Leaves nothing on it.
#
# Arguments: NONCE.
{ set +efux; } 2>/dev/null
unset IFS
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 2>/dev/null
_nonce=$1

_name=
while read -r _line; do
	case $_line in PRETTY_NAME=*) _name=${_line#*=} ;; esac
done </etc/os-release
[ -n "$_name" ] || _name=$(uname -s)
read -r _boot </proc/sys/kernel/random/boot_id
_host=$(uname -n)
_machine=$(uname -m)
_kernel=$(uname -r)

printf %s "WRIT:$_nonce:F $_boot|$_host|$_machine|$_kernel|$SHELL|$_name"
echo
