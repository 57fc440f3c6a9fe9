package confine

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are system calls that no emulator, server or translator of ours needs,
// and that ways out of a process were made of. Calls that start programs are not
// among them: this very thread has one to start. What may be run is Landlock's
// matter, and a program that will never run another says so itself.
var refused = []uintptr{
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_EXECVEAT,
	// mounts, roots and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_OPEN_TREE,
	unix.SYS_OPEN_TREE_ATTR, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT,
	// files past their names, and devices
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_MKNOD, unix.SYS_MKNODAT, unix.SYS_FANOTIFY_INIT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	// large parts of the kernel that are of no use here
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_PERSONALITY, unix.SYS_MODIFY_LDT, unix.SYS_VMSPLICE,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	// the host itself
	unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_VHANGUP,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
}

// Where a filter finds what it judges (struct seccomp_data, seccomp(2)).
const (
	atCall     = 0
	atMachine  = 4
	atFirstArg = 16
)

// x32 marks calls of a third kind, which would pass by the others' numbers.
const x32 = 0x40000000

// program returns the filter: calls that are refused fail with EPERM, sockets
// but those between processes with EAFNOSUPPORT, and calls of another
// architecture end the process.
func program() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	fails := func(e unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(e)}
	}
	p := []unix.SockFilter{
		{Code: load, K: atMachine},
		{Code: equal, Jt: 1, K: unix.AUDIT_ARCH_X86_64},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: atCall},
		{Code: least, Jf: 1, K: x32},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
	}
	for _, call := range refused {
		p = append(p, unix.SockFilter{Code: equal, Jf: 1, K: uint32(call)}, fails(unix.EPERM))
	}
	return append(p,
		// clone3 takes its flags by reference, where no filter sees them; whoever
		// is told that there is none uses clone.
		unix.SockFilter{Code: equal, Jf: 1, K: unix.SYS_CLONE3}, fails(unix.ENOSYS),
		unix.SockFilter{Code: equal, Jf: 3, K: unix.SYS_SOCKET},
		unix.SockFilter{Code: load, K: atFirstArg},
		unix.SockFilter{Code: equal, Jt: 1, K: unix.AF_UNIX},
		fails(unix.EAFNOSUPPORT),
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	)
}

// filter puts the filter on this thread and on whoever is started from it.
func filter() error {
	p := program()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	return os.NewSyscallError("seccomp", errnoOrNil(e))
}
