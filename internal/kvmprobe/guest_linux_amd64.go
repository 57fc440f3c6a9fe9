package kvmprobe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and structures of linux/kvm.h for x86-64, API version 12.
const (
	kvmGetAPIVersion   = 0xAE00
	kvmCreateVM        = 0xAE01
	kvmGetVCPUMmapSize = 0xAE04
	kvmCreateVCPU      = 0xAE41
	kvmSetTSSAddr      = 0xAE47
	kvmSetMemory       = 0x4020AE46
	kvmRun             = 0xAE80
	kvmSetRegs         = 0x4090AE82
	kvmGetSregs        = 0x8138AE83
	kvmSetSregs        = 0x4138AE84

	exitIO, exitHalt = 2, 5
)

type regs struct {
	rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp uint64
	r8, r9, r10, r11, r12, r13, r14, r15   uint64
	rip, rflags                            uint64
}

type segment struct {
	base                                             uint64
	limit                                            uint32
	selector                                         uint16
	typ, present, dpl, db, s, l, g, avl, unusable, _ uint8
}

type table struct {
	base  uint64
	limit uint16
	_     [3]uint16
}

type sregs struct {
	cs, ds, es, fs, gs, ss, tr, ldt     segment
	gdt, idt                            table
	cr0, cr2, cr3, cr4, cr8, efer, apic uint64
	interrupts                          [4]uint64
}

type memory struct {
	slot, flags       uint32
	guest, size, user uint64
}

const guestSize = 2 << 20

// runGuest runs a loop of n turns in 64-bit mode and returns how long that took.
func runGuest(n uint32) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("/dev/kvm does not open: %w", err)
	}
	defer unix.Close(kvm)
	if v, err := ioctl(kvm, kvmGetAPIVersion, nil); err != nil || v != 12 {
		return 0, fmt.Errorf("/dev/kvm speaks version %d, not 12", v)
	}
	vm, err := ioctl(kvm, kvmCreateVM, nil)
	if err != nil {
		return 0, fmt.Errorf("it makes no machine: %w", err)
	}
	defer unix.Close(vm)
	mem, err := unix.Mmap(-1, 0, guestSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(mem)
	load(mem, n)
	// Real Intel hardware wants three pages of the address space for itself.
	unix.Syscall(unix.SYS_IOCTL, uintptr(vm), kvmSetTSSAddr, 0xfffbd000)
	slot := memory{size: guestSize, user: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if _, err := ioctl(vm, kvmSetMemory, unsafe.Pointer(&slot)); err != nil {
		return 0, fmt.Errorf("it takes no memory: %w", err)
	}
	cpu, err := ioctl(vm, kvmCreateVCPU, nil)
	if err != nil {
		return 0, fmt.Errorf("it makes no CPU: %w", err)
	}
	defer unix.Close(cpu)
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, nil)
	if err != nil {
		return 0, err
	}
	run, err := unix.Mmap(cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(run)
	if err := longMode(cpu); err != nil {
		return 0, err
	}
	start := time.Now()
	err = untilHalt(cpu, run)
	return time.Since(start), err
}

// load writes the program at 4 KiB and page tables that map the memory to
// itself from 8 KiB on.
func load(mem []byte, n uint32) {
	code := binary.LittleEndian.AppendUint32([]byte{0xb9}, n) // mov ecx, n
	code = append(code,
		0xff, 0xc9, // dec ecx
		0x75, 0xfc, // jnz back to dec
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xb0, '4', // mov al, '4'
		0xee, // out dx, al
		0xf4) // hlt
	copy(mem[0x1000:], code)
	le := binary.LittleEndian
	le.PutUint64(mem[0x2000:], 0x3000|7)
	le.PutUint64(mem[0x3000:], 0x4000|7)
	le.PutUint64(mem[0x4000:], 0x87) // one page of 2 MiB
}

func longMode(cpu int) error {
	var s sregs
	if _, err := ioctl(cpu, kvmGetSregs, unsafe.Pointer(&s)); err != nil {
		return err
	}
	s.cr3, s.cr4, s.cr0, s.efer = 0x2000, 0x20, 0x80050033, 0x500
	s.cs = segment{limit: 0xffffffff, selector: 8, typ: 11, present: 1, s: 1, l: 1, g: 1}
	data := segment{limit: 0xffffffff, selector: 16, typ: 3, present: 1, s: 1, db: 1, g: 1}
	s.ds, s.es, s.fs, s.gs, s.ss = data, data, data, data, data
	if _, err := ioctl(cpu, kvmSetSregs, unsafe.Pointer(&s)); err != nil {
		return fmt.Errorf("it enters no 64-bit mode: %w", err)
	}
	r := regs{rflags: 2, rip: 0x1000, rsp: 0x8000}
	_, err := ioctl(cpu, kvmSetRegs, unsafe.Pointer(&r))
	return err
}

func untilHalt(cpu int, run []byte) error {
	var out []byte
	le := binary.LittleEndian
	for {
		_, err := ioctl(cpu, kvmRun, nil)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return fmt.Errorf("its CPU does not run: %w", err)
		}
		switch reason := le.Uint32(run[8:]); reason {
		case exitIO:
			out = append(out, run[le.Uint64(run[40:])])
		case exitHalt:
			if string(out) != "4" {
				return errOutput
			}
			return nil
		default:
			return fmt.Errorf("its CPU stopped for reason %d", reason)
		}
		if len(out) > 1 {
			return errOutput
		}
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}
