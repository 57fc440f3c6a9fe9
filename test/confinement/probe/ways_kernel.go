package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call of which only the outcome counts.
func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func of(format string) func(goals) string {
	return func(g goals) string { return fmt.Sprintf(format, g.Victim) }
}

var toProcesses = map[string]func(goals) error{
	"process-see":       func(g goals) error { _, err := os.Stat(of("/proc/%d")(g)); return err },
	"process-secrets":   opens(of("/proc/%d/environ"), unix.O_RDONLY),
	"process-memory":    opens(of("/proc/%d/mem"), unix.O_RDWR),
	"process-files":     func(g goals) error { _, err := os.ReadDir(of("/proc/%d/fd")(g)); return err },
	"process-read":      readMemory,
	"process-trace":     func(g goals) error { return unix.PtraceSeize(g.Victim) },
	"sibling-trace":     func(g goals) error { return unix.PtraceSeize(g.SiblingPID) },
	"process-kill":      func(g goals) error { return unix.Kill(g.Victim, 0) },
	"process-kill-one":  func(g goals) error { return unix.Tgkill(g.Victim, g.Victim, 0) },
	"sibling-kill":      func(g goals) error { return unix.Kill(g.SiblingPID, 0) },
	"all-kill":          func(goals) error { return unix.Kill(-1, 0) },
	"process-handle":    func(g goals) error { _, err := unix.PidfdOpen(g.Victim, 0); return err },
	"process-take-file": takeFile,
	"process-slow":      func(g goals) error { return unix.Setpriority(unix.PRIO_PROCESS, g.Victim, 1) },
	"process-limit": func(g goals) error {
		return unix.Prlimit(g.Victim, unix.RLIMIT_CORE, nil, new(unix.Rlimit))
	},
	"process-namespace": func(goals) error {
		runtime.LockOSThread()
		fd, err := unix.Open("/proc/1/ns/net", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Setns(fd, unix.CLONE_NEWNET)
	},
}

// readMemory reads where Go programs begin that are linked for a fixed address.
func readMemory(g goals) error {
	b := make([]byte, 4)
	to := []unix.Iovec{{Base: &b[0], Len: 4}}
	_, err := unix.ProcessVMReadv(g.Victim, to, []unix.RemoteIovec{{Base: 0x400000, Len: 4}}, 0)
	return err
}

func takeFile(g goals) error {
	fd, err := unix.PidfdOpen(g.Victim, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(fd, 1, 0)
	return err
}

var toPrograms = map[string]func(goals) error{
	"fork":          func(goals) error { return fork(uintptr(unix.SIGCHLD)) },
	"fork-user":     func(goals) error { return fork(uintptr(unix.SIGCHLD) | unix.CLONE_NEWUSER) },
	"run-shell":     func(goals) error { return syscall.Exec("/bin/sh", []string{"sh", "-c", "echo out: a shell"}, nil) },
	"run-itself":    func(goals) error { return syscall.Exec(os.Args[0], []string{"itself", "run"}, nil) },
	"run-written":   runWritten,
	"run-in-memory": runInMemory,
}

// fork makes a process that ends at once.
func fork(flags uintptr) error {
	runtime.LockOSThread()
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if e != 0 {
		return e
	}
	if pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return nil
}

const script = "#!/bin/sh\necho out: what it wrote itself\n"

func runWritten(goals) error {
	path, err := filepath.Abs("written")
	if err == nil {
		err = os.WriteFile(path, []byte(script), 0o755)
	}
	if err != nil {
		return err
	}
	return syscall.Exec(path, []string{"written"}, nil)
}

func runInMemory(goals) error {
	fd, err := unix.MemfdCreate("x", 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(script))
	}
	if err != nil {
		return err
	}
	empty, name := []byte{0}, append([]byte("x"), 0)
	argv := []*byte{&name[0], nil}
	return call(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), unix.AT_EMPTY_PATH)
}

var toPowers = map[string]func(goals) error{
	"be-root":     func(goals) error { return call(unix.SYS_SETRESUID, 0, 0, 0) },
	"be-another":  func(goals) error { return call(unix.SYS_SETRESUID, 1234, 1234, 1234) },
	"join-groups": func(goals) error { g := uint32(6); return call(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&g))) },
	"capability": func(goals) error {
		ask := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		all := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}}
		return unix.Capset(&ask, &all[0])
	},
	"go-first":   func(goals) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -10) },
	"ports":      func(goals) error { return call(unix.SYS_IOPERM, 0x80, 1, 1) },
	"host-name":  func(goals) error { return unix.Sethostname([]byte("taken")) },
	"reboot-key": func(goals) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
}

var toMounts = map[string]func(goals) error{
	"mount-new":   func(goals) error { return unix.Mount("tmpfs", ".", "tmpfs", 0, "") },
	"mount-bind":  func(goals) error { return unix.Mount("/", ".", "", unix.MS_BIND, "") },
	"mount-write": func(goals) error { return unix.Mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT, "") },
	"unmount":     func(goals) error { return unix.Unmount("/proc", unix.MNT_DETACH) },
	"chroot":      func(goals) error { return unix.Chroot("/") },
	"mount-open":  func(goals) error { _, err := unix.Fsopen("tmpfs", 0); return err },
	"mount-clone": func(goals) error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err },
	"unshare": func(goals) error {
		runtime.LockOSThread()
		return unix.Unshare(unix.CLONE_NEWNS)
	},
}

var toTheKernel = map[string]func(goals) error{
	"bpf": func(goals) error {
		array := [12]uint32{2, 4, 4, 1} // BPF_MAP_TYPE_ARRAY, sizes of key and value, entries
		return call(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&array)), unsafe.Sizeof(array))
	},
	"perf": func(goals) error {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		_, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
		return err
	},
	"page-faults": func(goals) error { return call(unix.SYS_USERFAULTFD, 0) },
	"rings": func(goals) error {
		var params [120]byte
		return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])))
	},
	"keys": func(goals) error {
		_, err := unix.AddKey("user", "probe", []byte("x"), unix.KEY_SPEC_USER_KEYRING)
		return err
	},
	"shared-memory": func(g goals) error {
		return call(unix.SYS_SHMAT, uintptr(g.Memory), 0, 0)
	},
	"kernel-words": func(goals) error { _, err := unix.Klogctl(10, nil); return err }, // SYSLOG_ACTION_SIZE_BUFFER
}
