#!/bin/busybox sh
# The first program of a machine: load the drivers of its disks and screen,
# mount the file system with the label, go on there.
B=/bin/busybox
$B mount -t devtmpfs dev /dev
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys

label=root
read -r words < /proc/cmdline
for w in $words; do
	case $w in root=LABEL=*) label=${w#root=LABEL=};; esac
done

loaded=' '
load() {
	for m; do
		case $loaded in *" $m "*) continue;; esac
		loaded="$loaded$m "
		$B insmod /m/$m.ko 2>/dev/null
	done
}
drive() {
@DRIVERS@
	return 0
}

seen=' '
look() {
	for f in /sys/bus/pci/devices/*/modalias /sys/bus/virtio/devices/*/modalias /sys/bus/scsi/devices/*/modalias \
		/sys/bus/xen/devices/*/modalias /sys/bus/acpi/devices/VMB*/modalias /sys/bus/acpi/devices/MSFT*/modalias \
		/sys/bus/vmbus/devices/*/modalias; do
		case $seen in *" $f "*) continue;; esac
		[ -r $f ] || continue
		seen="$seen$f "
		a=
		read -r a < $f
		drive "$a"
	done
}

load @ALWAYS@
n=0
while :; do
	look
	disk=$($B findfs LABEL=$label 2>/dev/null) && break
	n=$((n + 1))
	if [ $n -gt 600 ]; then
		echo "no file system labelled $label was found. Disks: $(echo /sys/class/block/*). Drivers:$loaded"
		exit 1
	fi
	$B usleep 50000
done
if ! $B mount -t ext4 -o noatime $disk /root; then
	echo "$disk could not be mounted; its file system needs a repair from outside"
	exit 1
fi
for d in dev proc sys; do $B mount --move /$d /root/$d; done
exec $B switch_root /root /sbin/init
