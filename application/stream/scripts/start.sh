# start DIGITS USER HOME COMMAND...: run the layer's command on the desktop.
set -eu
digits=$1 user=$2 home=$3
at=/run/consort/layers/$digits
short=$(printf %.16s "$digits")
unit=consort-app-$short
[ -e "$at.ready" ] && grep -q " $at erofs " /proc/self/mounts || { echo "the layer is not attached" >&2; exit 10; }
id -u "$user" >/dev/null 2>&1 || { echo "the guest has no account $user" >&2; exit 13; }

systemctl --quiet is-active "$unit" && exit 0
systemctl reset-failed "$unit" 2>/dev/null || :
mkdir -p /run/consort/log
log=/run/consort/log/$short
rm -f "$log" "$log.exit"

# The first 64 KiB of what it prints are kept, for the error below.
systemd-run --quiet --collect --unit="$unit" --service-type=exec \
	--property=KillMode=control-group --property=TimeoutStopSec=3 --property=SendSIGHUP=yes \
	/bin/sh -c '
	log=$1
	shift
	{
		code=0
		unshare --mount --propagation slave /bin/sh /run/consort/enter.sh "$@" </dev/null || code=$?
		echo $code >"$log.exit"
	} 2>&1 | {
		head -c 65536 >"$log"
		cat >/dev/null
	}' sh "$log" "$@"

tries=0
while [ $tries -lt 15 ]; do
	if [ -e "$log.exit" ]; then
		sleep 0.1
		echo "it ended at once with exit status $(cat "$log.exit"): $(tail -c 1500 "$log")" >&2
		exit 11
	fi
	tries=$((tries + 1))
	sleep 0.1
done
exit 0
