package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// uid is the account's number in every guest, so that a home fits every image.
const uid = 1000

// applyRecipe writes the recipe's files and units and makes the account.
func (b *build) applyRecipe(ctx context.Context) error {
	r := b.recipe
	if r.User != "" {
		if err := b.inside(ctx, "useradd", "--uid", strconv.Itoa(uid), "--create-home", "--shell", "/bin/bash",
			"--groups", "video,audio,input", r.User); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(b.root())
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range own() {
		if err := place(root, f); err != nil {
			return err
		}
	}
	for _, f := range r.Files {
		if err := place(root, f); err != nil {
			return err
		}
	}
	if err := b.forget(root); err != nil {
		return err
	}
	for verb, units := range map[string][]string{"enable": r.Enable, "mask": r.Mask} {
		if len(units) == 0 {
			continue
		}
		if err := b.inside(ctx, append([]string{"systemctl", "--quiet", verb, "--"}, units...)...); err != nil {
			return err
		}
	}
	b.advance(0.5)
	return b.fillCaches(ctx, root)
}

// own are the files every image has.
func own() []estate.RecipeFile {
	return []estate.RecipeFile{
		{Path: "/etc/fstab", Content: "# the initramfs mounts the root by its label\n"},
		{Path: "/etc/hostname", Content: "desktop\n"},
		{Path: "/etc/hosts", Content: "127.0.0.1 localhost\n127.0.1.1 desktop\n::1 localhost\n"},
		{Path: "/etc/apt/sources.list", Content: "# no archives: this system is replaced, not upgraded\n"},
	}
}

// place writes one file. Links on the way are followed inside the system only;
// a link at the end is replaced.
func place(root *os.Root, f estate.RecipeFile) error {
	mode := uint64(0o644)
	if f.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(f.Mode, 8, 12); err != nil {
			return fault.Invalid.Errorf("file %s: mode %q: %w", f.Path, f.Mode, err)
		}
	}
	rel := strings.TrimPrefix(f.Path, "/")
	if err := root.MkdirAll(path.Dir(rel), 0o755); err != nil {
		return fault.Invalid.Errorf("file %s: %w", f.Path, err)
	}
	if err := root.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Invalid.Errorf("file %s: %w", f.Path, err)
	}
	if err := root.WriteFile(rel, []byte(f.Content), 0o600); err != nil {
		return fault.Invalid.Errorf("file %s: %w", f.Path, err)
	}
	return root.Chmod(rel, fs.FileMode(mode&0o777)|special(mode))
}

func special(mode uint64) fs.FileMode {
	var m fs.FileMode
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// forget removes what came from this host or would be the same in every
// machine made from the image: keys above all.
func (b *build) forget(root *os.Root) error {
	gone := []string{"etc/resolv.conf", "etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem",
		"etc/xrdp/rsakeys.ini", "etc/xrdp/key.pem", "etc/xrdp/cert.pem", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"}
	keys, err := fs.Glob(root.FS(), "etc/ssh/ssh_host_*")
	if err != nil {
		return err
	}
	for _, name := range append(gone, keys...) {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, dir := range []string{"var/lib/apt/lists", "var/cache/apt", "var/log"} {
		if err := emptyDir(root, dir); err != nil {
			return err
		}
	}
	// systemd gives an empty one a value at each boot.
	if err := root.WriteFile("etc/machine-id", nil, 0o444); err != nil {
		return err
	}
	return root.Symlink("/run/systemd/resolve/resolv.conf", "etc/resolv.conf")
}

// emptyDir removes the files below a directory and keeps the directories.
func emptyDir(root *os.Root, dir string) error {
	return fs.WalkDir(root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		return root.Remove(name)
	})
}

// fillCaches makes at build time what would cost every first boot. It sets the
// time of every file first: the caches remember times of directories, and the
// file system will hold whole seconds only.
func (b *build) fillCaches(ctx context.Context, root *os.Root) error {
	if err := b.setTimes(); err != nil {
		return err
	}
	for _, c := range [][]string{{"usr/bin/systemd-hwdb", "update"}, {"usr/bin/fc-cache", "-s"}} {
		if _, err := root.Stat(c[0]); err != nil {
			continue
		}
		if err := b.inside(ctx, append([]string{"/" + c[0]}, c[1:]...)...); err != nil {
			return err
		}
	}
	for _, f := range []string{"etc/.updated", "var/.updated"} {
		if err := root.WriteFile(f, nil, 0o644); err != nil {
			return err
		}
	}
	if b.recipe.User != "" {
		err := b.inside(ctx, "chown", "-R", "--no-dereference", fmt.Sprintf("%d:%d", uid, uid), "/home/"+b.recipe.User)
		if err != nil {
			return err
		}
	}
	return b.setTimes()
}

// setTimes gives every file of the system a time of whole seconds, none later
// than epoch.
func (b *build) setTimes() error {
	latest, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return err
	}
	return filepath.WalkDir(b.root(), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := unix.Timespec{Sec: min(info.ModTime().Unix(), latest)}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	})
}
