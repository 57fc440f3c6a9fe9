# detach DIGITS: end the layer's processes and unmount it.
set -eu
digits=$1
at=/run/consort/layers/$digits
short=$(printf %.16s "$digits")
unit=consort-app-$short

mkdir -p -m 0711 /run/consort
exec 9>/run/consort/lock # as attach has it
flock 9
rm -f "$at.ready"
systemctl stop "$unit" 2>/dev/null || :
systemctl reset-failed "$unit" 2>/dev/null || :
tries=0
while grep -q " $at " /proc/self/mounts; do
	umount "$at" 2>/dev/null && continue
	tries=$((tries + 1))
	[ $tries -lt 50 ] || { echo "the layer is in use in the guest" >&2; exit 14; }
	sleep 0.1
done
if [ -d "$at" ]; then rmdir "$at"; fi
rm -rf "/run/consort/caches/$digits" "/run/consort/log/$short" "/run/consort/log/$short.exit"
exit 0
