package stream

import (
	"context"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/erofs/go-erofs"
)

// grid is what the size of a layer is a multiple of: the chunks in which layers
// will be delivered piece by piece. The library lays each file on a block of
// 4 KiB and offers no coarser grid (kernel 6.1 mounts no larger blocks), so the
// files themselves are not aligned to chunks yet.
const grid = 64 << 10

// writeImage writes the tree as a raw EROFS image. The same tree gives the same
// bytes: the order is that of the names, and all times come from the packages.
func writeImage(ctx context.Context, t *tree, spool *spool, dir string, report func(done int64)) (string, error) {
	f, err := os.CreateTemp(dir, "layer-*.erofs")
	if err != nil {
		return "", err
	}
	keep := false
	defer func() {
		f.Close()
		if !keep {
			os.Remove(f.Name())
		}
	}()
	w := erofs.Create(f, erofs.WithBuildTime(uint64(t.newest().Unix()), 0), erofs.WithTempDir(dir))
	var done int64
	for _, name := range append([]string{"."}, t.names()...) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := writeNode(w, name, t.nodes[name], spool); err != nil {
			return "", err
		}
		done += t.nodes[name].size
		report(done)
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := pad(f); err != nil {
		return "", err
	}
	keep = true
	return f.Name(), f.Close()
}

func writeNode(w *erofs.Writer, name string, n *node, spool *spool) error {
	at := "/" + name
	if name == "." {
		at = "/"
	}
	switch n.mode.Type() {
	case fs.ModeDir:
		if err := w.Mkdir(at, n.mode.Perm()); err != nil {
			return err
		}
	case fs.ModeSymlink:
		if err := w.Symlink(n.target, at); err != nil {
			return err
		}
	default:
		if err := writeFile(w, at, n, spool); err != nil {
			return err
		}
	}
	if err := w.Chown(at, n.uid, n.gid); err != nil {
		return err
	}
	mtime := n.mtime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	return w.Chtimes(at, mtime, mtime)
}

func writeFile(w *erofs.Writer, at string, n *node, spool *spool) error {
	f, err := w.Create(at)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, spool.content(n.offset, n.size)); err != nil {
		return err
	}
	if err := f.Chmod(n.mode.Perm()); err != nil {
		return err
	}
	return f.Close()
}

// pad fills the file with zeros up to the grid and makes it durable.
func pad(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := f.Truncate((size + grid - 1) / grid * grid); err != nil {
		return err
	}
	return f.Sync()
}
