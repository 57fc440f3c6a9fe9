package qemu

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// slots is how many disks can be attached to a running machine. Each is a root
// port of its own, which costs a guest some milliseconds at boot.
const slots = 8

// machineType pins what a guest sees, whatever QEMU comes next.
const machineType = "pc-q35-7.2"

// Names in a machine's run folder.
const (
	qmpSocket     = "qmp"
	displaySocket = "display"
	agentSocket   = "agent"
	serialSocket  = "serial"
	pidFile       = "pid"
)

// launch is all that a command line depends on. Files are numbers of inherited
// descriptors: the process opens no file by name, so it needs no right to any.
type launch struct {
	def    driver.Definition
	run    string // folder of its sockets
	accel  string
	cpu    string
	disks  [][]diskFile // each topmost first
	nics   []int
	code   int // firmware code and variables under UEFI
	vars   int
	serial int // where the console is logged, if it is
	key    int // of a sealed machine

	memory  int // what the machine is to go on with, and the disks it had attached
	plugged []plug

	ram    int   // file that holds its memory, read by mapping it; the rest of its state comes later
	shared bool  // what the machine writes to its memory goes there too
	built  int   // how many network cards it has from the start
	joined []int // the slots of those that came later
}

// diskFile is the descriptor of one file of a disk.
type diskFile struct {
	fd     int
	format estate.DiskFormat
	sealed bool
}

// plug is a disk that was attached when the memory was saved.
type plug struct {
	plugged
	file diskFile
}

// argv returns the arguments after the program's name.
func (l launch) argv() []string {
	d := l.def
	machine := machineType + ",vmport=off,hpet=off,dump-guest-core=off"
	if d.Firmware == estate.UEFI {
		machine += ",pflash0=code,pflash1=vars"
	}
	if l.ram != 0 {
		machine += ",memory-backend=" + ramName
	}
	args := []string{
		"-nodefaults", "-no-user-config",
		"-name", "guest=" + strings.ReplaceAll(d.Name, ",", ",,"),
		"-uuid", string(d.ID),
		"-machine", machine,
		"-accel", l.accel,
		"-cpu", l.cpu,
		"-smp", strconv.Itoa(d.CPUs),
		"-m", fmt.Sprintf("size=%dM", d.Memory/estate.MiB),
		// QEMU is started unprivileged, so that nothing it needs is denied here.
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-rtc", "base=utc",
		"-boot", "menu=off,strict=on",
		"-action", "reboot=reset,shutdown=poweroff",
		"-pidfile", l.path(pidFile),
		"-chardev", socket("control", l.path(qmpSocket)), "-mon", "chardev=control,mode=control",
	}
	console := socket("console", l.path(serialSocket))
	if l.serial != 0 {
		args = append(args, fdset(l.serial)...)
		console += fmt.Sprintf(",logfile=/dev/fdset/%d,logappend=on", l.serial)
	}
	args = append(args,
		"-chardev", console,
		"-serial", "chardev:console",
		"-display", "none",
		// One viewer never throws out another: who may look is decided above us.
		"-vnc", "unix:"+l.path(displaySocket)+",share=force-shared",
		"-device", screen(d.Screen),
		"-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci",
		"-device", "virtio-serial-pci",
		"-chardev", socket("agent", l.path(agentSocket)),
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
		// A guest that goes on from memory learns that others may have, too.
		"-device", "vmgenid,guid=auto",
		"-object", "rng-builtin,id=entropy", "-device", "virtio-rng-pci,rng=entropy",
	)
	if d.Firmware == estate.UEFI {
		args = slices.Concat(args, fdset(l.code), blockdev(fileNode("code", l.code, true)),
			fdset(l.vars), blockdev(fileNode("vars", l.vars, false)))
	}
	if l.key != 0 {
		args = append(args, "-object", fmt.Sprintf("secret,id=%s,file=/proc/self/fd/%d", secretName, l.key))
	}
	for i, disk := range d.Disks {
		args = append(args, l.disk(i, disk)...)
	}
	if l.ram != 0 {
		args = append(args, "-object", l.backend())
	}
	for i := range l.built {
		args = append(args, l.nic(i, "")...)
	}
	for i := range slots {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d,slot=%d", i, i+1, i+1))
	}
	for _, p := range l.plugged {
		name := plugName(p.Disk.Name)
		args = slices.Concat(args, nodes(name, []diskFile{p.file}, p.Disk.ReadOnly), []string{"-device",
			fmt.Sprintf("virtio-blk-pci,id=%s,drive=%s,serial=%s,bus=slot%d", name, name, p.Disk.Name, p.Slot)})
	}
	for i, slot := range l.joined {
		i += l.built
		args = append(args, l.nic(i, fmt.Sprintf(",id=%s,bus=%s", cardName(i), slotName(slot)))...)
	}
	switch {
	case l.memory != 0:
		args = append(args, "-incoming", fmt.Sprintf("fd:%d", l.memory), "-S")
	case l.ram != 0:
		args = append(args, "-incoming", "defer", "-S")
	}
	return args
}

// ramName is the name of a machine's memory in what is written of it, whether
// it lies in a file or not.
const ramName = "pc.ram"

// backend is memory that lies in a file. QEMU opens it by name; this one leads
// to the descriptor the process has.
func (l launch) backend() string {
	share := "off"
	if l.shared {
		share = "on"
	}
	return fmt.Sprintf("memory-backend-file,id=%s,x-use-canonical-path-for-ramblock-id=off,size=%dM,mem-path=/proc/self/fd/%d,share=%s",
		ramName, l.def.Memory/estate.MiB, l.ram, share)
}

// disk returns the words for one disk: its files, its formats as recorded, and
// the device a guest sees.
func (l launch) disk(i int, d driver.Disk) []string {
	name := "disk-" + d.Name
	device := fmt.Sprintf("virtio-blk-pci,id=%s,drive=%s,serial=%s,bootindex=%d", name, name, d.Name, i+1)
	return append(nodes(name, l.disks[i], d.ReadOnly), "-device", device)
}

// nodes returns the words for the files of a disk, the lowest first, since a
// node stands on one that is there. Only the topmost is ever written to.
func nodes(name string, files []diskFile, readOnly bool) (words []string) {
	under := ""
	for i := len(files) - 1; i >= 0; i-- {
		f, own, fixed := files[i], name, readOnly
		if i > 0 {
			own, fixed = fmt.Sprintf("%s.%d", name, i), true
		}
		n := formatNode(own, f.format, fixed)
		if under != "" {
			n["backing"] = under
		}
		words = slices.Concat(words, fdset(f.fd), blockdev(fileNode(fileName(own), f.fd, fixed)))
		if f.sealed {
			n["file"] = envelopeName(own)
			words = append(words, blockdev(envelope(own))...)
		}
		words = append(words, blockdev(n)...)
		under = own
	}
	return words
}

func (l launch) nic(i int, at string) []string {
	n := l.def.NICs[i]
	netdev := fmt.Sprintf("tap,id=nic%d,fd=%d,vhost=off", i, l.nics[i])
	switch {
	case n.Unplugged: // a hub that nobody else is on
		netdev = fmt.Sprintf("hubport,id=nic%d,hubid=%d", i, i)
	case n.Socket != "":
		netdev = fmt.Sprintf("stream,id=nic%d,server=off,addr.type=fd,addr.str=%d", i, l.nics[i])
	}
	// Without a ROM: nothing boots from the network.
	return []string{"-netdev", netdev, "-device", fmt.Sprintf("virtio-net-pci,netdev=nic%d,mac=%s,romfile=", i, n.MAC) + at}
}

func (l launch) path(name string) string { return l.run + "/" + name }

func socket(id, path string) string {
	return "socket,id=" + id + ",path=" + path + ",server=on,wait=off"
}

// screen is standard VGA: the fastest to clone, drawn by every guest, and no
// code of a GPU emulation within a guest's reach.
func screen(s estate.Screen) string {
	w, h := cmp.Or(s.Width, 1280), cmp.Or(s.Height, 800)
	mem := 16 // MiB, a power of two
	for w*h*4 > mem<<20 {
		mem *= 2
	}
	return fmt.Sprintf("VGA,id=screen,edid=on,xres=%d,yres=%d,vgamem_mb=%d", w, h, mem)
}

// node is the JSON of a block node.
type node map[string]any

// fileName returns the name of the node for the file under a format's node. No
// disk's name has a dot in it, and QEMU takes 31 bytes.
func fileName(name string) string { return name + ".f" }

// fileNode is a file that came to the process as a descriptor.
func fileNode(name string, fd int, readOnly bool) node {
	return node{"driver": "file", "node-name": name, "filename": fmt.Sprintf("/dev/fdset/%d", fd),
		"read-only": readOnly, "auto-read-only": false, "discard": "unmap"}
}

// formatNode reads the file node of the same name as the format of our record
// says. It never has a backing file that its header names.
func formatNode(name string, format estate.DiskFormat, readOnly bool) node {
	n := node{"driver": string(format), "node-name": name, "file": fileName(name), "read-only": readOnly, "discard": "unmap"}
	if format == estate.QCOW2 {
		n["backing"] = nil
	}
	return n
}

func fdset(fd int) []string { return []string{"-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd)} }

func blockdev(n node) []string { return []string{"-blockdev", marshal(n)} }

func marshal(n node) string {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings, booleans and maps of them marshal
	}
	return string(b)
}
