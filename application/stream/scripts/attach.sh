# attach DIGITS SERIAL SIZE HEAD: mount the layer's disk and make its caches.
set -eu
digits=$1 serial=$2 size=$3 head=$4
at=/run/consort/layers/$digits

for program in flock mount umount unshare setpriv bwrap systemd-run systemctl; do
	command -v $program >/dev/null || { echo "the guest has no $program; add it to the image" >&2; exit 13; }
done

mkdir -p -m 0711 /run/consort/layers /run/consort/caches /run/consort/stage

# Who waits no longer for a slow guest calls again, while the first call goes on:
# one at a time, detach too. The lock goes with this shell.
exec 9>/run/consort/lock
flock 9

# The kernel's own list is there before udev's names are. Nothing is forked in
# these loops: a process costs a guest without hardware virtualisation dearly.
disk() {
	for file in /sys/block/*/serial; do
		has=
		[ -e "$file" ] && read -r has <"$file" || :
		if [ "$has" = "$serial" ]; then
			name=${file#/sys/block/}
			name=${name%/serial}
			return
		fi
	done
	# A disk that has none, as on Xen, is known by its size and its beginning.
	for dir in /sys/block/*; do
		has=
		[ -e "$dir/serial" ] && read -r has <"$dir/serial" || :
		[ -z "$has" ] || continue
		read -r sectors <"$dir/size" || continue
		[ $((sectors * 512)) -eq "$size" ] && [ -b "/dev/${dir##*/}" ] || continue
		sum=$(head -c 65536 "/dev/${dir##*/}" | sha256sum)
		if [ "${sum%% *}" = "$head" ]; then
			name=${dir##*/}
			return
		fi
	done
}

# mounted succeeds when something is mounted at the layer's place, and says in
# $from what.
mounted() {
	while read -r device place kind rest; do
		if [ "$place" = "$at" ]; then
			from="$device $kind"
			return 0
		fi
	done </proc/self/mounts
	return 1
}

tries=0 name=
while :; do
	disk
	[ -n "$name" ] && [ -b "/dev/$name" ] && break
	tries=$((tries + 1))
	[ $tries -lt 300 ] || { echo "disk $serial did not appear in the guest" >&2; exit 12; }
	sleep 0.1
done
read -r sectors <"/sys/block/$name/size"
have=$((sectors * 512))
[ "$have" -eq "$size" ] || { echo "disk $serial has $have bytes, not $size" >&2; exit 1; }

from=
# What an earlier disk left behind goes first.
while mounted && [ "$from" != "/dev/$name erofs" ]; do
	umount -l "$at"
	from=
done
if [ -n "$from" ] && [ -e "$at.ready" ]; then
	exit 0 # by the call before this one, and it may be in use
fi
if [ -z "$from" ]; then
	[ -d "$at" ] || mkdir "$at"
	mount -t erofs -o ro,nodev,nosuid "/dev/$name" "$at"
fi

# What scripts of the packages would have made, made as nobody in particular.
want=
[ -d "$at/usr/share/glib-2.0/schemas" ] && want="$want schemas"
for dir in "$at"/usr/lib/*/gdk-pixbuf-2.0/*/loaders; do
	[ -d "$dir" ] && want="$want pixbuf"
done
[ -d "$at/usr/share/mime/packages" ] && [ ! -e /usr/share/mime/mime.cache ] && want="$want mime"
cache=/run/consort/caches/$digits
[ -e "$cache" ] && rm -rf "$cache"
if [ -n "$want" ]; then
	mkdir -p "$cache"
	chown nobody:nogroup "$cache"
	CONSORT_OUT=$cache timeout 60 unshare --mount --propagation slave \
		/bin/sh /run/consort/enter.sh "$digits" nobody /nonexistent /bin/sh -c "$(cat /run/consort/caches.sh)" caches $want 9>&- ||
		echo "caches:$want: not made" >&2
	chown -R -h root:root "$cache"
	chmod 0755 "$cache"
fi
echo "/dev/$name" >"$at.ready"
