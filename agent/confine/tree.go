package confine

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// systemDirs hold what programs are made of. They hold no secrets: everybody may
// read them.
var systemDirs = []string{"/usr", "/lib", "/lib32", "/lib64", "/libx32"}

// loaderCache tells the loader where libraries are.
const loaderCache = "/etc/ld.so.cache"

// interpreter returns the loader of an ELF file, or "" for one that has none.
func interpreter(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(name), "\x00"), err
		}
	}
	return "", nil
}

// enter moves this thread into a file tree of its own, in which there is only
// what a process needs that starts in dir. Nobody else sees the tree, and it
// goes with the last who is in it.
func (c *Confiner) enter(dir string, devices []string) error {
	// Now so that links on the way are followed while they can be.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // which parts with our current folder, too
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part with other mounts: %w", err)
	}
	own, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", dir, err)
	}
	defer unix.Close(own)
	const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// The tree is built over the folder: it is there, and ours.
	if err := unix.Mount("tmpfs", dir, "tmpfs", inert, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	if err := c.furnish(dir, devices); err != nil {
		return err
	}
	proc := filepath.Join(dir, "proc")
	if err := os.Mkdir(proc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", inert, "hidepid=ptraceable,subset=pid"); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	inside := filepath.Join(dir, dir)
	if err := os.MkdirAll(inside, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(own, "", unix.AT_FDCWD, inside, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount %s: %w", dir, err)
	}
	for at, flags := range map[string]uintptr{inside: inert, dir: inert | unix.MS_RDONLY} {
		if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			return fmt.Errorf("remount %s: %w", at, err)
		}
	}
	return pivot(dir)
}

// furnish puts into the tree at root what the program is made of, unchangeable,
// and the devices.
func (c *Confiner) furnish(root string, devices []string) error {
	const fixed = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	for _, dir := range systemDirs {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			var to string
			if to, err = os.Readlink(dir); err == nil {
				err = os.Symlink(to, root+dir)
			}
		case err == nil:
			err = bind(root, dir, fixed)
		}
		if err != nil {
			return err
		}
	}
	more := []string{loaderCache}
	if !strings.HasPrefix(c.program, "/usr/") {
		more = append(more, c.program)
	}
	for _, file := range more {
		if err := bind(root, file, fixed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, device := range devices {
		if err := bind(root, device, unix.MS_NOSUID|unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// bind shows a file or a folder of the host at its own path in the tree.
func bind(root, path string, flags uintptr) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	at := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(path, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	return nil
}

// pivot makes the folder the root and lets go of the one there was: the old one
// is put over the new one and taken off (pivot_root(2), "pivot_root(".", ".")").
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	return unix.Chdir("/")
}
