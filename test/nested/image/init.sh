#!/bin/bash
# The first program of a nested host. It brings up what libvirtd needs and then
# the porter, which is how tests get in.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*" > /dev/console; }
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
# Without these, Xen's script for block devices spins for ever.
ln -sfn /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin; ln -sf fd/1 /dev/stdout; ln -sf fd/2 /dev/stderr
mkdir -p /run/lock /run/xen /run/libvirt /var/log/xen /var/log/libvirt/libxl /var/log/libvirt/qemu /var/cache/libvirt
mkdir -p /var/lib/libvirt/libxl /var/lib/libvirt/qemu
ln -sfn /run /var/run
ln -sfn /run/lock /var/lock
hostname nested
ip link set lo up
drivers=/usr/lib/x86_64-linux-gnu/libvirt/connection-driver
kind=$(cat /sys/hypervisor/type 2>/dev/null || echo kvm)
case $kind in
xen)
	rm -f $drivers/libvirt_driver_qemu.so
	modules="xenfs xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xen-blkback xen-netback loop" uri=xen:///system
	;;
*)
	rm -f $drivers/libvirt_driver_libxl.so
	modules="kvm_amd vhost_net loop" uri=qemu:///system
	;;
esac
for m in virtio_net bridge tun $modules; do modprobe $m; done
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle
nic=$(basename /sys/class/net/e*)
ip link set $nic up
ip addr add 10.0.2.15/24 dev $nic
ip route add default via 10.0.2.2
ip link add br0 type bridge
ip addr add 10.99.0.1/24 dev br0
ip link set br0 up
say "network $nic"
if [ $kind = xen ]; then
	mount -t xenfs xenfs /proc/xen
	xen=/usr/lib/xen-4.17/bin
	export PATH=$PATH:$xen
	mkdir -p /run/xenstored /var/lib/xenstored /var/lib/xen/console
	$xen/xenstored --internal-db --pid-file /run/xenstored.pid
	$xen/xen-init-dom0
	$xen/xenconsoled --pid-file=/run/xenconsoled.pid
	say "xenstored and xenconsoled"
fi
while :; do porter; sleep 1; done &
virtlogd -d
LIBVIRT_LOG_OUTPUTS=3:file:/var/log/libvirt/libvirtd.log libvirtd -d --listen
for _ in {1..300}; do
	virsh -c $uri version > /tmp/version 2>&1 && touch /run/ready && break
	sleep 0.2
done
[ -e /run/ready ] || cat /var/log/libvirt/libvirtd.log > /dev/console
say "$(tail -1 /tmp/version)"
while :; do wait -n; sleep 1; done
