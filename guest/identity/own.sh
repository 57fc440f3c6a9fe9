# Gives a guest that goes on from a template an identity of its own. The values
# above come from the host. It may be run again, and does the same again.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

# The clock stood still with the template; keys and leases are dated by it. The
# machine's own clock follows behind: writing it takes a guest up to a second.
date -s "@$now" >/dev/null || exit 10
command -v hwclock >/dev/null && setsid hwclock --systohc --utc </dev/null >/dev/null 2>&1 &

# The kernel was told of the fork by its generation ID; this is for guests whose
# kernel knows none. A saved seed is the template's.
printf %s "$seed" > /dev/urandom || exit 11
rm -f /var/lib/systemd/random-seed /var/lib/urandom/random-seed

hostname "$hostname" || exit 12
echo "$hostname" > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$hostname" > /etc/hosts

# systemd may have laid one over the file that it could not write at boot.
while read -r _ at _; do
	[ "$at" != /etc/machine-id ] || umount -l "$at"
done < /proc/mounts
rm -f /etc/machine-id
(umask 222; echo "$machine" > /etc/machine-id) || exit 13
[ ! -f /var/lib/dbus/machine-id ] || [ -L /var/lib/dbus/machine-id ] || echo "$machine" > /var/lib/dbus/machine-id

# What DHCP gave to the template, were it ever there.
rm -f /run/systemd/netif/leases/* /var/lib/dhcp/*.leases

# Host keys: of the kinds that there were. Who holds the old ones in memory begins
# anew. A key of RSA takes a guest under emulation many seconds: it comes later.
restart= later=
for key in /etc/ssh/ssh_host_*_key; do
	[ -e "$key" ] || continue
	kind=${key#/etc/ssh/ssh_host_}
	kind=${kind%_key}
	rm -f "$key" "$key.pub"
	restart="$restart ssh.service"
	if [ "$kind" = rsa ]; then
		later=$key
		continue
	fi
	ssh-keygen -q -t "$kind" -N '' -f "$key" || exit 14
done
for key in /etc/xrdp/key.pem /etc/xrdp/cert.pem /etc/xrdp/rsakeys.ini; do
	[ -e "$key" ] || continue
	rm -f "$key"
	restart="$restart xrdp-sesman.service xrdp.service"
done
[ -z "$restart" ] || systemctl --no-block try-restart $restart || exit 15
[ -z "$later" ] || setsid sh -c 'ssh-keygen -q -t rsa -N "" -f "$1" && systemctl --no-block try-restart ssh.service' sh "$later" </dev/null >/dev/null 2>&1 &

# What an image has of its own that must not be alike.
for own in /etc/consort/identity.d/*; do
	[ ! -x "$own" ] || "$own" || exit 16
done

# A network card that was there has the template's address, and no link. This comes
# last, since what looks after networks wakes up at it. What asks for an address by
# the machine's ID still has the template's.
byid=yes
for file in /etc/systemd/network/*.network; do
	[ ! -r "$file" ] || while read -r line; do
		[ "$line" != ClientIdentifier=mac ] || byid=
	done < "$file"
done
for pair in $cards; do
	for card in /sys/class/net/*; do
		read -r has < "$card/address" && [ "$has" = "${pair%=*}" ] || continue
		ip link set dev "${card##*/}" address "${pair#*=}" || exit 17
		[ -z "$byid" ] || systemctl --no-block try-restart systemd-networkd.service
	done
done
echo own
