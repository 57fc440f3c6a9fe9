# attached: print the digits of each layer that is mounted from its own disk.
set -eu
while read -r device at kind rest; do
	case $at in
	/run/consort/layers/*)
		digits=${at##*/}
		[ "$kind" = erofs ] && [ -e "$at.ready" ] || continue
		has=
		file=/sys/block/${device#/dev/}/serial
		[ -e "$file" ] && read -r has <"$file" || :
		# Without one, the disk it was mounted from then is as much as is known.
		if [ -z "$has" ] && read -r from <"$at.ready" && [ "$from" = "$device" ]; then
			echo "$digits"
		fi
		# The serial number is "l-" and the first 16 digits.
		case $digits in
		"${has#l-}"*) [ ${#has} -eq 18 ] && echo "$digits" ;;
		esac
		;;
	esac
done </proc/self/mounts
exit 0
