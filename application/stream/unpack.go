package stream

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// unpack adds the files of a Debian package to the tree and their content to
// the spool. Nothing of the package is run.
func unpack(ctx context.Context, t *tree, deb string, spool *spool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.WaitDelay = 5 * time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fault.Unavailable.Errorf("run dpkg-deb: %w; install the package dpkg", err)
	}
	err = addTar(t, out, path.Base(deb), spool)
	if err != nil {
		cancel()
	} else {
		_, err = io.Copy(io.Discard, out)
	}
	if ended := cmd.Wait(); err == nil && ended != nil {
		err = fault.Invalid.Errorf("%w: %s", ended, strings.TrimSpace(complaint.String()))
	}
	if err != nil {
		return fault.KindOf(err).Errorf("unpack %s: %w", path.Base(deb), err)
	}
	return nil
}

// addTar adds the members of a tar archive to the tree.
func addTar(t *tree, r io.Reader, origin string, spool *spool) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Invalid.Errorf("read the archive: %w", err)
		}
		if err := addMember(t, h, archive, origin, spool); err != nil {
			return err
		}
	}
}

func addMember(t *tree, h *tar.Header, content io.Reader, origin string, spool *spool) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes that unpack to any size
			return fault.Invalid.Errorf("%q is a sparse file", name)
		}
	}
	if !numeric(h.Uid) || !numeric(h.Gid) {
		return fault.Invalid.Errorf("%q belongs to account %d:%d", name, h.Uid, h.Gid)
	}
	n := &node{
		// Neither setuid nor setgid: an application is the person, never more.
		mode: fs.FileMode(h.Mode) & 0o777, uid: h.Uid, gid: h.Gid,
		mtime: h.ModTime.Truncate(time.Second), origin: origin,
	}
	if n.mtime.Unix() < 0 {
		n.mtime = time.Unix(0, 0)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		n.mode |= fs.ModeDir
	case tar.TypeSymlink:
		n.mode, n.target = fs.ModeSymlink|0o777, h.Linkname
		if n.target == "" || len(n.target) > 4095 || strings.ContainsRune(n.target, 0) {
			return fault.Invalid.Errorf("link %q leads to %q", name, n.target)
		}
	case tar.TypeReg:
		if n.size = h.Size; n.size > mostBytes {
			return fault.Invalid.Errorf("%q has %d bytes", name, n.size)
		}
		if n.offset, err = spool.add(content, n.size); err != nil {
			return err
		}
	case tar.TypeLink:
		// The content is shared in the spool and written twice to the layer.
		to, err := clean(h.Linkname)
		if err != nil {
			return err
		}
		first := t.find(to)
		if first == nil || !first.mode.IsRegular() {
			return fault.Invalid.Errorf("%q is a hard link to %q, which is no file before it", name, h.Linkname)
		}
		n.mode, n.offset, n.size = first.mode, first.offset, first.size
	default:
		return fault.Invalid.Errorf("%q is neither a file, a directory nor a link (type %q)", name, h.Typeflag)
	}
	if len(name) > 4095 || len(path.Base(name)) > 255 {
		return fault.Invalid.Errorf("name %.40q... is too long", name)
	}
	return t.add(name, n)
}

// numeric reports whether an account number fits a file system.
func numeric(id int) bool { return id >= 0 && id < 1<<32-1 }
