#!/bin/bash
# Makes the disk that a nested host boots from, its two kernels, and a small
# guest for it, all in the folder $1. It is run in namespaces of its own, with
# the archives of this machine on its input; $1 holds the program "porter".
#
# One system serves both kinds of host. Started under Xen it hides libvirt's
# driver for QEMU, and started alone that for Xen: see init.sh.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
out=$1
root=$out/root

# The cloud kernel cannot be Xen's first domain; guests boot it faster.
packages=linux-image-amd64,linux-image-cloud-amd64,busybox-static,kmod,udev,iproute2,procps,e2fsprogs
packages+=,xen-hypervisor-4.17-amd64,xen-utils-4.17,xen-utils-common,xenstore-utils,grub-xen-host,qemu-system-xen
packages+=,libvirt-daemon,libvirt-daemon-driver-xen,libvirt-daemon-driver-qemu,libvirt-daemon-system-sysv,libvirt-clients
packages+=,qemu-system-x86,qemu-utils,qemu-guest-agent,nftables,dnsmasq-base,dnsmasq-utils,grub-xen-bin,grub-common
mmdebstrap --quiet --mode=root --variant=minbase --architectures=amd64 --include="$packages" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/bug/*' \
	bookworm "$root" -

cloud=$(basename "$root"/lib/modules/*-cloud-amd64)
full=${cloud/-cloud/}
zcat "$root/boot/xen-4.17-amd64.gz" > "$out/xen"
cp "$root/boot/vmlinuz-$full" "$out/vmlinuz"

# modules prints the files of the modules named, and of what they need, in the
# order in which they are loaded. They are the host's, or of the kernel in $of.
modules() {
	for m; do chroot "$root" modprobe -S "${of:-$full}" --show-depends "$m"; done | awk '/^insmod/ && !seen[$2]++ { print $2 }'
}

# takes puts modules into an initramfs, and the script /load that loads them.
takes() {
	mkdir -p "$1/m"
	for f in $2; do
		cp "$root$f" "$1/m/"
		echo "insmod /m/$(basename "$f")" >> "$1/load"
	done
}

# pack makes an initramfs of a folder.
pack() { (cd "$1" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null) > "$2"; }

# first makes a folder with busybox under the names that a script uses.
first() {
	mkdir -p "$1"/{bin,sbin,dev,proc,sys}
	cp "$root/bin/busybox" "$1/bin/"
	"$1/bin/busybox" --install -s "$1/bin" 2>/dev/null || true
	for a in "$1"/bin/*; do [ ! -L "$a" ] || ln -sf busybox "$a"; done
}

# The initramfs of a host: it finds the disk and goes on there.
first "$out/initrd.d"
mkdir "$out/initrd.d/n"
takes "$out/initrd.d" "$(modules virtio_pci virtio_blk ext4 | grep -v crc32c-intel)"
cat > "$out/initrd.d/init" <<'I'
#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
. /load
until [ -b /dev/vda ]; do usleep 50000; done
mount -t ext4 -o noatime /dev/vda /n
mount --move /dev /n/dev
mount --move /proc /n/proc
exec switch_root /n /init
I
chmod 755 "$out/initrd.d/init"
pack "$out/initrd.d" "$out/initrd"

# The small guest: a disk that GRUB finds its way on, a kernel, busybox and the
# agent. GRUB for PV takes the kernel out of its wrapping itself, and knows gzip
# but not Debian's LZ4, so PV has a kernel and a disk of its own: one disk for
# both would be copied with twice the bytes. The offsets are those of
# Documentation/x86/boot.rst; LZ4's stream ends before the last four bytes.
kernel=$out/kernel-pvh
cp "$root/boot/vmlinuz-$cloud" "$kernel"
number() { od -An -j "$1" -N "$2" -t "u$2" "$kernel" | tr -d ' '; }
begin=$((($(number 0x1f1 1) + 1) * 512 + $(number 0x248 4)))
head -c $((begin + $(number 0x24c 4) - 4)) "$kernel" | tail -c +$((begin + 1)) | lz4 -dcq | gzip -9n > "$out/kernel-pv"
first "$out/tiny.init"
cp "$here/tiny-init.sh" "$out/tiny.init/init"
printf '#!/bin/sh\nexec /bin/busybox poweroff -f\n' > "$out/tiny.init/sbin/poweroff"
chmod 755 "$out/tiny.init/init" "$out/tiny.init/sbin/poweroff"
for f in /usr/sbin/qemu-ga $(chroot "$root" ldd /usr/sbin/qemu-ga | grep -o '/[^ ]*'); do
	mkdir -p "$out/tiny.init$(dirname "$f")"
	cp -L "$root$f" "$out/tiny.init$f"
done
takes "$out/tiny.init" "$(of=$(basename "$cloud") modules xen-blkfront)"
pack "$out/tiny.init" "$out/tiny.initrd"
mkdir -p "$out/tiny.d/boot/grub"
gzip -9n < "$out/tiny.initrd" > "$out/tiny.d/boot/initrd" # GRUB reads 1 MB/s here
menu() { printf 'linux %s/kernel console=hvc0 quiet mitigations=off cryptomgr.notests\ninitrd %s/initrd\nboot\n' "$1" "$1"; }
menu /boot > "$out/tiny.d/boot/grub/grub.cfg"

# Beside it, the small guest as a loader: GRUB that holds the kernel and reads no
# disk, in place of Debian's. It is up in two thirds of the time.
loaders=$root/usr/local/lib/tiny-loaders
mkdir -p "$loaders"
loader() {
	cp "$out/kernel-$1" "$out/tiny.d/boot/kernel"
	tar -C "$out/tiny.d/boot" -cf "$root/memdisk" kernel initrd
	menu '(memdisk)' > "$root/menu"
	chroot "$root" grub-mkimage -O "$2" -p / -c /menu -m /memdisk -o "/${loaders#"$root/"}/$3" memdisk tar gzio linux
	rm "$root/memdisk" "$root/menu"
}
loader pvh i386-xen_pvh grub-i386-xen_pvh.bin
loader pv x86_64-xen grub-x86_64-xen.bin
for kind in pvh pv; do
	mv "$out/kernel-$kind" "$out/tiny.d/boot/kernel"
	truncate -s 20M "$out/tiny-$kind.raw"
	mkfs.ext4 -q -F -b 4096 -N 64 -O '^has_journal,^metadata_csum,^64bit,^resize_inode' -m 0 -d "$out/tiny.d" "$out/tiny-$kind.raw"
done

# Of the modules only those are kept that a host uses.
mkdir "$out/kept"
for f in $(modules virtio_pci virtio_blk virtio_net ext4 xen-evtchn xen-gntdev xen-gntalloc xenfs xen-privcmd \
	xen-blkback xen-netback loop bridge veth tun nft_chain_nat nft_masq nft_ct nft_connlimit overlay kvm_amd vhost_net); do
	mkdir -p "$out/kept/$(dirname "$f")"
	cp "$root$f" "$out/kept/$f"
done
cp "$root/lib/modules/$full/"modules.{builtin,builtin.modinfo,order} "$out/kept/lib/modules/$full/"
rm -rf "$root"/usr/lib/modules/* "$root"/usr/lib/grub "$root"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/* "$root"/usr/lib/udev/hwdb.*
cp -r "$out/kept/lib/modules/." "$root/usr/lib/modules/"
chroot "$root" depmod "$full"

# Xen hides SEP from its first domain on AMD, and libvirt 9.0 knows no x86-64
# processor without it; its driver for Xen would not start.
sed -i "/feature name='sep'/d" "$root/usr/share/libvirt/cpu_map/x86_qemu64.xml"
rm -f "$root"/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_{nwfilter,nodedev,interface,network}.so
cat > "$root/etc/libvirt/libvirtd.conf" <<'C'
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
auth_tcp = "none"
auth_unix_rw = "none"
C
echo 'autoballoon = 0' > "$root/etc/libvirt/libxl.conf"
cat > "$root/etc/libvirt/qemu.conf" <<'C'
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
C
# libvirt asks for the user of Debian's QEMU though it is told another.
chroot "$root" useradd --system --user-group --no-create-home libvirt-qemu
cp "$here/init.sh" "$root/init"
cp "$out/porter" "$root/usr/local/bin/porter"
chmod 755 "$root/init" "$root/usr/local/bin/porter"
mkdir -p "$root/srv" "$root/var/lib/xen" "$root/var/log/xen"

# Room for disks of guests, in holes.
truncate -s 12G "$out/disk.raw"
mkfs.ext4 -q -F -O '^has_journal,^metadata_csum' -E lazy_itable_init=1,nodiscard -m 0 -d "$root" "$out/disk.raw"
qemu-img convert -q -f raw -O qcow2 "$out/disk.raw" "$out/disk.qcow2"
rm -rf "$root" "$out/kept" "$out/initrd.d" "$out/tiny.d" "$out/tiny.init" "$out/tiny.initrd" "$out/disk.raw"
