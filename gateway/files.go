package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Carry has the agent of a machine's host open a tunnel for one file; what is
// said in it stands at api.CallFile.
type Carry func(ctx context.Context, machine *estate.Machine, f api.File) (net.Conn, error)

// SendFile carries so many bytes of r into the home folder of the desktop's
// person, if the desktop's context lets them in.
func (g *Gateway) SendFile(ctx context.Context, d *estate.Desktop, path string, size int64, r io.Reader) (estate.Digest, error) {
	rules, err := g.lets(ctx, d, path, false)
	if err == nil {
		err = rules.fits(path, size)
	}
	if err != nil {
		return "", err
	}
	way, err := g.carrier(ctx, d, api.File{Path: path, Size: size})
	if err != nil {
		return "", err
	}
	defer way.close()
	if _, err := way.hear(); err != nil {
		return "", err
	}
	sum := sha256.New()
	n, err := io.CopyN(io.MultiWriter(way.conn, sum), r, size)
	if err != nil && n < size && ctx.Err() == nil {
		// Either the sender went away, or the agent gave up and says why.
		way.stop()
	}
	reply, said := way.hear()
	switch {
	case said != nil && fault.KindOf(said) != fault.OutcomeUnknown:
		return "", said
	case err != nil:
		return "", fault.Unavailable.Errorf("send %s: it broke off after %d of %d bytes: %w", path, n, size, err)
	case said != nil:
		return "", said
	}
	if digest := estate.Digest(fmt.Sprintf("sha256:%x", sum.Sum(nil))); reply.Digest != digest {
		return "", fault.Internal.Errorf("send %s: the agent took %s for %s", path, reply.Digest.Short(), digest.Short())
	}
	return reply.Digest, nil
}

// FetchFile carries a file out of the home folder of the desktop's person, if the
// desktop's context lets it out, to the writer that begin returns for its size.
func (g *Gateway) FetchFile(ctx context.Context, d *estate.Desktop, path string, begin func(size int64) io.Writer) (estate.Digest, error) {
	rules, err := g.lets(ctx, d, path, true)
	if err != nil {
		return "", err
	}
	way, err := g.carrier(ctx, d, api.File{Path: path, Out: true, Size: rules.most})
	if err != nil {
		return "", err
	}
	defer way.close()
	reply, err := way.hear()
	if err == nil {
		err = rules.fits(path, reply.Size)
	}
	if err != nil {
		return "", err
	}
	return way.fetch(path, reply.Size, begin(reply.Size))
}

// fetch copies what comes. The last byte is held back until all was found right,
// so that nobody takes a file for whole that is not.
func (w *fileWay) fetch(path string, size int64, to io.Writer) (estate.Digest, error) {
	sum := sha256.New()
	n, err := io.CopyN(io.MultiWriter(to, sum), w.r, max(0, size-1))
	last := make([]byte, size-n)
	if err == nil {
		_, err = io.ReadFull(w.r, last)
	}
	if err != nil {
		return "", fault.Unavailable.Errorf("fetch %s: it broke off after %d of %d bytes: %w", path, n, size, err)
	}
	sum.Write(last)
	reply, err := w.hear()
	if err != nil {
		return "", err
	}
	if digest := estate.Digest(fmt.Sprintf("sha256:%x", sum.Sum(nil))); reply.Digest != digest {
		return "", fault.Unavailable.Errorf("fetch %s: what came is %s, and %s was sent", path, digest.Short(), reply.Digest.Short())
	}
	_, err = to.Write(last)
	return reply.Digest, err
}

// fileRules is what a context says of a file that goes in a direction.
type fileRules struct {
	context string
	most    int64
}

// lets checks that files may go in the direction.
func (g *Gateway) lets(ctx context.Context, d *estate.Desktop, path string, out bool) (fileRules, error) {
	if why := estate.FileProblem(path); why != "" {
		return fileRules{}, fault.Invalid.Errorf("carry a file: %s", why)
	}
	x, err := g.contextOf(ctx, d)
	if err != nil {
		return fileRules{}, err
	}
	switch f := x.Spec.Files; {
	case out && !f.Out:
		return fileRules{}, fault.Denied.Errorf("fetch %s: context %s lets no file out of its desktops (files.out)", path, x.Metadata.Name)
	case !out && !f.In:
		return fileRules{}, fault.Denied.Errorf("send %s: context %s lets no file into its desktops (files.in)", path, x.Metadata.Name)
	}
	return fileRules{x.Metadata.Name, int64(cmp.Or(x.Spec.Files.MaxBytes, estate.FilesBytes))}, nil
}

// fits checks the file's length.
func (r fileRules) fits(path string, size int64) error {
	if size > r.most {
		return fault.Denied.Errorf("carry %s: it has %d bytes, and context %s lets %d cross (files.maxBytes)", path, size, r.context, r.most)
	}
	return nil
}

// fileWay is a tunnel for one file.
type fileWay struct {
	conn net.Conn
	r    *bufio.Reader
	free func() bool
}

// carrier opens the tunnel to where the desktop runs.
func (g *Gateway) carrier(ctx context.Context, d *estate.Desktop, f api.File) (*fileWay, error) {
	if g.Carry == nil {
		return nil, fault.Unsupported.Errorf("this gateway carries no files")
	}
	if d.Status.Machine == "" || d.Status.Plan == nil {
		return nil, fault.Conflict.Errorf("carry %s: %s does not run; connect first", f.Path, d.Ref())
	}
	m, err := store.Get[estate.Machine](ctx, g.Store, d.Metadata.Project, d.Status.Machine)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Status.Power != estate.On:
		return nil, fault.Conflict.Errorf("carry %s: %s does not run; connect first", f.Path, d.Ref())
	case !m.Own():
		return nil, fault.Busy.Errorf("carry %s: %s has no identity of its own yet; try again in a moment", f.Path, d.Ref())
	case d.Status.Plan.Guest.User == "":
		return nil, fault.Unsupported.Errorf("carry %s: the image of %s names no account whose home it could be in (guest.user)", f.Path, d.Ref())
	}
	f.User = d.Status.Plan.Guest.User
	conn, err := g.Carry(ctx, m, f)
	if err != nil {
		return nil, fault.KindOf(err).Errorf("reach %s: %w", m.Ref(), err)
	}
	free := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return &fileWay{conn, bufio.NewReaderSize(conn, 64<<10), free}, nil
}

func (w *fileWay) close() {
	w.free()
	_ = w.conn.Close() // nothing is left to say
}

// stop tells the agent that no more comes.
func (w *fileWay) stop() {
	if half, can := w.conn.(interface{ CloseWrite() error }); can && half.CloseWrite() == nil {
		return
	}
	_ = w.conn.Close() // it hears that too
}

// hear reads one line of the agent's.
func (w *fileWay) hear() (api.FileReply, error) {
	var reply api.FileReply
	line, err := w.r.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &reply)
	}
	switch {
	case err != nil:
		return reply, fault.OutcomeUnknown.Errorf("carry a file: the agent's answer was lost; look whether it is there: %w", err)
	case reply.Error != nil:
		return reply, reply.Error
	}
	return reply, nil
}
