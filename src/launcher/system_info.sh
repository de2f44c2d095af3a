# Reads facts about the system, for people. Leaves nothing on the machine.
_name=
while read -r _line; do
	case $_line in PRETTY_NAME=*) _name=${_line#*=} ;; esac
done </etc/os-release
[ "$_name" ] || _name=$(uname -s)
read -r _boot </proc/sys/kernel/random/boot_id
_host=$(uname -n)
_machine=$(uname -m)
_kernel=$(uname -r)

printf "%s\\n" "WRIT2:$_nonce:F $_boot|$_host|$_machine|$_kernel|$SHELL|$_name"
answer .
exit
