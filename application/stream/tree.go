package stream

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// tree is a file system in the making. Names are clean and relative; the root
// is ".". Nothing of it is ever a path on our own disk: the content of files
// lies one after the other in a spool, so a hostile archive has nothing to
// escape from.
type tree struct {
	nodes map[string]*node
	bytes int64 // of all files together
}

// node is one directory, file or symbolic link.
type node struct {
	mode   fs.FileMode // type and permission; never setuid, setgid or a device
	uid    int
	gid    int
	mtime  time.Time
	target string // of a symbolic link
	offset int64  // of a file's content in the spool
	size   int64
	origin string // the package that brought it

	priority int // of a link that a script would make; 0 for what a package brought
}

const (
	mostNodes = 400_000  // LibreOffice with everything has 30,000
	mostBytes = 16 << 30 // of content
	mostHops  = 16       // symbolic links followed in one name
)

func newTree() *tree {
	return &tree{nodes: map[string]*node{".": {mode: fs.ModeDir | 0o755}}}
}

// clean turns the name of an archive member into a name in the tree. A name
// that leads out of the tree is refused.
func clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fault.Invalid.Errorf("name %q holds a zero byte", name)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", fault.Invalid.Errorf("name %q leads out of the archive", name)
	}
	name = path.Clean(strings.TrimLeft(name, "/"))
	for _, dir := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		// Debian 12 has these directories merged into /usr.
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return "usr/" + name, nil
		}
	}
	return name, nil
}

// add puts n at the name. A directory over what leads to a directory, and a
// link over a directory, change nothing: dpkg does the same.
func (t *tree) add(name string, n *node) error {
	hops := mostHops
	at, err := t.resolve(path.Dir(name), n, &hops)
	if err != nil {
		return err
	}
	at = path.Join(at, path.Base(name))
	old := t.nodes[at]
	switch {
	case old == nil && len(t.nodes) >= mostNodes:
		return fault.Invalid.Errorf("it has more than %d files", mostNodes)
	case old == nil || at == ".":
	case old.mode.IsDir() && n.mode.Type() == fs.ModeSymlink:
		return nil
	case n.mode.IsDir() && old.mode.Type() == fs.ModeSymlink:
		return nil
	case old.mode.IsDir() != n.mode.IsDir():
		return fault.Invalid.Errorf("%q is a directory in one package (%s) and none in another (%s)", at, old.origin, n.origin)
	}
	if t.bytes += n.size; t.bytes > mostBytes {
		return fault.Invalid.Errorf("it unpacks to more than %d GiB", mostBytes>>30)
	}
	t.nodes[at] = n
	return nil
}

// resolve returns the directory that name leads to, made where it is missing.
// Links are followed inside the tree only, as many as hops says for the whole
// name.
func (t *tree) resolve(name string, like *node, hops *int) (string, error) {
	if name == "." {
		return name, nil
	}
	if *hops == 0 {
		return "", fault.Invalid.Errorf("%q goes through too many symbolic links", name)
	}
	dir, err := t.resolve(path.Dir(name), like, hops)
	if err != nil {
		return "", err
	}
	at := path.Join(dir, path.Base(name))
	n := t.nodes[at]
	switch {
	case n == nil:
		if len(t.nodes) >= mostNodes {
			return "", fault.Invalid.Errorf("it has more than %d files", mostNodes)
		}
		t.nodes[at] = &node{mode: fs.ModeDir | 0o755, mtime: like.mtime, origin: like.origin}
		return at, nil
	case n.mode.IsDir():
		return at, nil
	case n.mode.Type() == fs.ModeSymlink:
		*hops--
		return t.resolve(inside(path.Dir(at), n.target), like, hops)
	}
	return "", fault.Invalid.Errorf("%q is a file and a directory", at)
}

// find returns the node that name leads to through links inside the tree.
func (t *tree) find(name string) *node {
	for range mostHops {
		n := t.nodes[name]
		if n == nil || n.mode.Type() != fs.ModeSymlink {
			return n
		}
		name = inside(path.Dir(name), n.target)
	}
	return nil
}

// inside returns where a link in dir leads, clamped to the root as a kernel does.
func inside(dir, target string) string {
	if !path.IsAbs(target) {
		target = path.Join("/", dir, target)
	}
	name, err := clean(path.Clean(target))
	if err != nil {
		return "."
	}
	return name
}

// keep drops what a layer does not carry: everything outside the directories
// that are laid over the guest's, documentation and translations that images
// leave out too, and directories that are empty then.
func (t *tree) keep() {
	for name := range t.nodes {
		if name != "." && !carried(name) {
			delete(t.nodes, name)
		}
	}
	full := map[string]bool{".": true}
	for name, n := range t.nodes {
		if !n.mode.IsDir() {
			for d := path.Dir(name); d != "."; d = path.Dir(d) {
				full[d] = true
			}
		}
	}
	for name, n := range t.nodes {
		if n.mode.IsDir() && !full[name] && !strings.HasPrefix(name, "var/") && !strings.HasPrefix(name, "etc/") {
			delete(t.nodes, name)
		}
	}
}

// overlaid are the directories a guest lays over its own.
func overlaid() []string { return []string{"etc", "opt", "usr", "var"} }

func carried(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	if !slices.Contains(overlaid(), top) {
		return false
	}
	for _, dir := range []string{
		"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale",
		"usr/share/lintian", "usr/share/bug", "usr/share/gtk-doc", "usr/share/help", "usr/share/metainfo",
	} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	return true
}

// names returns every name but the root's, sorted, so that a directory comes
// before what it holds.
func (t *tree) names() []string {
	var names []string
	for name := range t.nodes {
		if name != "." {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// newest returns the latest time in the tree.
func (t *tree) newest() time.Time {
	var last time.Time
	for _, n := range t.nodes {
		if n.mtime.After(last) {
			last = n.mtime
		}
	}
	return last
}
