package image

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var initScript string

// writeInitramfs writes a file system for the kernel to begin in: busybox, the
// drivers of disks and screens, and a script that loads those the machine has
// and goes on to the file system with the label on the command line. It is not
// compressed: an emulated processor pays more for unpacking than for reading.
func writeInitramfs(to string, all *modules, busybox string) error {
	var out bytes.Buffer
	ar := &archive{w: &out, dirs: map[string]bool{}}
	box, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	ar.file("bin/busybox", 0o755, box)
	for _, d := range []string{"dev", "proc", "sys", "root"} {
		ar.dir(d)
	}
	seen := map[string]bool{}
	for _, list := range [][]string{alwaysLoaded[:], bootModules[:]} {
		for _, name := range list {
			for _, file := range all.closure(name) {
				if seen[file] {
					continue
				}
				seen[file] = true
				data, err := os.ReadFile(filepath.Join(all.dir, file))
				if err != nil {
					return err
				}
				ar.file("m/"+moduleName(file)+".ko", 0o644, data)
			}
		}
	}
	script := strings.NewReplacer(
		"@ALWAYS@", strings.Join(loadOrder(all, alwaysLoaded[:]), " "),
		"@DRIVERS@", driverTable(all),
	).Replace(initScript)
	ar.file("init", 0o755, []byte(script))
	if err := ar.close(); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

func loadOrder(all *modules, names []string) []string {
	var order []string
	for _, name := range names {
		for _, file := range all.closure(name) {
			order = append(order, moduleName(file))
		}
	}
	return order
}

// driverTable is a shell case for each driver: which hardware it drives, which
// modules are loaded for it.
func driverTable(all *modules) string {
	var b strings.Builder
	for _, name := range bootModules {
		m, ok := all.byName[moduleName(name)]
		var globs []string
		for _, a := range m.aliases {
			if bus, _, _ := strings.Cut(a, ":"); bus != "of" && !strings.HasPrefix(a, "block-") {
				globs = append(globs, a)
			}
		}
		if ok && globs != nil {
			fmt.Fprintf(&b, "\tcase $1 in %s) load %s;; esac\n", strings.Join(globs, "|"), strings.Join(loadOrder(all, []string{name}), " "))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// archive writes a cpio archive in the "newc" form, which is what the kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w    io.Writer
	dirs map[string]bool
	ino  int
	n    int // bytes written
	err  error
}

func (a *archive) dir(name string) {
	if name == "." || a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, 0o040755, nil)
}

func (a *archive) file(name string, perm uint32, data []byte) {
	a.dir(path.Dir(name))
	a.entry(name, 0o100000|perm, data)
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	a.ino++
	links := 1
	a.write([]byte("070701"))
	for _, v := range []int{a.ino, int(mode), 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		a.write(fmt.Appendf(nil, "%08x", v))
	}
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(data)
	a.pad()
}

func (a *archive) pad() { a.write(make([]byte, (4-a.n%4)%4)) }

func (a *archive) write(p []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(p)
		a.n += len(p)
	}
}

func (a *archive) close() error {
	a.ino = -1
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}
