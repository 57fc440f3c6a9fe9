# attached: print the digits of each layer that is mounted from its own disk.
set -eu
while read -r device at kind rest; do
	case $at in
	/run/consort/layers/*)
		digits=${at##*/}
		short=$(printf %.16s "$digits")
		[ "$kind" = erofs ] && [ -e "$at.ready" ] || continue
		serial=$(cat "/sys/block/${device#/dev/}/serial" 2>/dev/null) || continue
		[ "$serial" = "l-$short" ] && echo "$digits"
		;;
	esac
done </proc/self/mounts
exit 0
