package main

import (
	"maps"
	"net"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ways are all there are, by name. Each returns nil where it led out.
func ways() map[string]func(goals) error {
	all := map[string]func(goals) error{}
	for _, some := range []map[string]func(goals) error{toFiles, toDevices, toSockets, toProcesses, toPrograms, toPowers, toMounts, toTheKernel} {
		maps.Copy(all, some)
	}
	return all
}

// opens tries to open a file; what it would hold or be given is beside the point.
func opens(path func(goals) string, flags int) func(goals) error {
	return func(g goals) error {
		fd, err := unix.Open(path(g), flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func at(path string) func(goals) string { return func(goals) string { return path } }

func disk(g goals) string { return g.Disk }

var toFiles = map[string]func(goals) error{
	"disk-read":     opens(disk, unix.O_RDONLY),
	"disk-write":    opens(disk, unix.O_RDWR),
	"disk-truncate": func(g goals) error { return unix.Truncate(g.Disk, 1<<20) },
	"disk-chmod":    func(g goals) error { return unix.Chmod(g.Disk, 0o666) },
	"disk-chown":    func(g goals) error { return unix.Chown(g.Disk, 1234, -1) },
	"disk-link":     func(g goals) error { return unix.Link(g.Disk, "linked") },
	"disk-symlink": func(g goals) error {
		_ = unix.Symlink(g.Disk, "led") // what counts is where it leads
		return opens(at("led"), unix.O_RDWR)(g)
	},
	"disk-handle":    byHandle,
	"record-read":    opens(func(g goals) string { return g.Record }, unix.O_RDONLY),
	"machines-list":  opens(func(g goals) string { return g.Machines }, unix.O_RDONLY|unix.O_DIRECTORY),
	"machines-watch": watch,
	"secret-read":    opens(func(g goals) string { return g.Secret }, unix.O_RDONLY),
	"secret-proc":    opens(func(g goals) string { return "/proc/1/root" + g.Secret }, unix.O_RDONLY),
	"shadow-read":    opens(at("/etc/shadow"), unix.O_RDONLY),
	"passwd-read":    opens(at("/etc/passwd"), unix.O_RDONLY),
	"home-list":      opens(at("/root"), unix.O_RDONLY|unix.O_DIRECTORY),
	"stray-write":    opens(func(g goals) string { return filepath.Join(g.Dir, "stray") }, unix.O_RDWR|unix.O_CREAT),
	"stray-delete":   func(g goals) error { return unix.Unlink(g.Stray) },
	"system-write":   opens(at("/usr/lib/os-release"), unix.O_WRONLY),
	"sibling-folder": func(g goals) error {
		return opens(at("/proc/self/cwd/../../../s/m/"+filepath.Base(g.Sibling)+"/machine.json"), unix.O_RDONLY)(g)
	},
}

func byHandle(g goals) error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, g.Disk, 0)
	if err != nil {
		return err
	}
	on, err := unix.Open(filepath.Dir(g.Disk), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.OpenByHandleAt(on, h, unix.O_RDWR)
	return err
}

func watch(g goals) error {
	fd, err := unix.InotifyInit1(0)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, g.Machines, unix.IN_ALL_EVENTS)
	}
	return err
}

var toDevices = map[string]func(goals) error{
	"block-device":    opens(func(g goals) string { return g.Block }, unix.O_RDONLY),
	"kernel-log":      opens(at("/dev/kmsg"), unix.O_RDONLY),
	"accelerator":     opens(at("/dev/kvm"), unix.O_RDWR),
	"tap-make":        makeTap,
	"sysctl-write":    opens(at("/proc/sys/kernel/core_pattern"), unix.O_WRONLY),
	"sysrq":           opens(at("/proc/sysrq-trigger"), unix.O_WRONLY),
	"control-groups":  groups,
	"device-make":     makeDevice,
	"terminal-others": opens(at("/dev/ptmx"), unix.O_RDWR),
}

func makeTap(goals) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	r, err := unix.NewIfreq("probe0")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
}

func groups(g goals) error {
	found, _ := filepath.Glob("/sys/fs/cgroup/cgroup.procs")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, path := range append(found, more...) {
		return opens(at(path), unix.O_WRONLY)(g)
	}
	return unix.ENOENT
}

func makeDevice(g goals) error {
	if err := unix.Mknod("made", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		return err
	}
	return opens(at("made"), unix.O_RDONLY)(g)
}

// reaches tries to talk to somebody who answers.
func reaches(network string, address func(goals) string) func(goals) error {
	return func(g goals) error {
		c, err := net.DialTimeout(network, address(g), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		return nil
	}
}

// has tries to make a socket of a kind.
func has(family, kind, protocol int) func(goals) error {
	return func(goals) error {
		_, err := unix.Socket(family, kind, protocol)
		return err
	}
}

var toSockets = map[string]func(goals) error{
	"api":               reaches("unix", func(g goals) string { return g.API }),
	"sibling-control":   reaches("unix", func(g goals) string { return g.Control }),
	"sibling-screen":    reaches("unix", func(g goals) string { return g.Screen }),
	"sibling-agent":     reaches("unix", func(g goals) string { return g.Agent }),
	"abstract-socket":   reaches("unix", func(g goals) string { return "@" + g.Abstract }),
	"tcp-connect":       reaches("tcp", func(g goals) string { return g.TCP }),
	"udp-send":          reaches("udp", func(g goals) string { return g.UDP }),
	"sibling-beside":    reaches("unix", func(g goals) string { return "../../../" + filepath.Base(g.API) }),
	"tcp-listen":        func(goals) error { _, err := net.Listen("tcp", "0.0.0.0:0"); return err },
	"frames":            has(unix.AF_PACKET, unix.SOCK_RAW, 0x300),
	"raw-internet":      has(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
	"routes":            has(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
	"netfilter":         has(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER),
	"internet-6":        has(unix.AF_INET6, unix.SOCK_DGRAM, 0),
	"host-by-interface": func(goals) error { return foreignLink() },
}

func foreignLink() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if !strings.HasPrefix(l.Name, "lo") && l.Flags&net.FlagUp != 0 {
			return nil
		}
	}
	return unix.ENODEV
}
