package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
)

const (
	// fetchTries is how often in a row a fetch may break off without a byte more.
	fetchTries = 4
	// fetchSilence is how long a host may send nothing.
	fetchSilence = 30 * time.Second
	// fetchTold bounds how often progress is written to the store.
	fetchTold = 2 * time.Second
	// largestStatus is more than any system's dpkg status; that of a desktop is
	// about 1 MiB.
	largestStatus = 64 << 20
)

// piece is content that some host has and this one lacks. What it is comes from
// the plane: the host that sends it is believed nothing that its digest does
// not prove.
type piece struct {
	what   string // for people
	record image.Record
}

// fetcher gets content from other hosts, one piece at a time. What was made
// once is never made again while some host has it.
type fetcher struct {
	agent   *Agent
	content *content
	wake    chan struct{}

	mu     sync.Mutex
	now    *estate.Fetching
	failed map[estate.Digest]time.Time
	lost   map[estate.Digest]time.Time // when every host said that it has it not
}

func newFetcher(c *content) *fetcher {
	return &fetcher{
		agent: c.agent, content: c, wake: make(chan struct{}, 1),
		failed: map[estate.Digest]time.Time{}, lost: map[estate.Digest]time.Time{},
	}
}

// run fetches what is lacking until ctx ends.
func (f *fetcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		p, ok := f.next()
		if !ok {
			select {
			case <-f.wake:
			case <-time.After(retryAfter):
			case <-ctx.Done():
			}
			continue
		}
		err := f.get(ctx, p)
		if ctx.Err() != nil {
			return
		}
		f.settle(p, err)
	}
}

// look has it look for what is lacking, soon.
func (f *fetcher) look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// settle remembers how a fetch ended.
func (f *fetcher) settle(p piece, err error) {
	f.mu.Lock()
	f.now = nil
	switch {
	case errors.Is(err, fault.NotFound):
		f.lost[p.record.Digest] = f.agent.Now()
	case err != nil:
		f.failed[p.record.Digest] = f.agent.Now()
		f.agent.Log.Warn("fetch content", "what", p.what, "error", err)
	}
	f.mu.Unlock()
	f.agent.machinesChanged()
	f.content.saw(func() {}) // it can be made of now, or must be made
}

// gone reports whether every host was asked for the content just now and none has it.
func (f *fetcher) gone(d estate.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, lost := f.lost[d]
	return lost && f.agent.Now().Sub(at) < retryAfter
}

// fetching is what is on its way, for the host's status.
func (f *fetcher) fetching() []estate.Fetching {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		return nil
	}
	return []estate.Fetching{*f.now}
}

func (f *fetcher) next() (piece, bool) {
	for _, p := range f.content.lacking() {
		f.mu.Lock()
		at, failed := f.failed[p.record.Digest]
		f.mu.Unlock()
		if rests := failed && f.agent.Now().Sub(at) < retryAfter; !rests && !f.gone(p.record.Digest) {
			return p, true
		}
	}
	return piece{}, false
}

// lacking lists what other hosts may have and this one has not: images, then
// layers of the images that are here, then layers of machines that are here.
func (c *content) lacking() []piece {
	needed := c.agent.layersHere()
	c.mu.Lock()
	defer c.mu.Unlock()
	var images, layers []piece
	for key, m := range c.images {
		s := &m.Status
		if !m.Metadata.Deleting.IsZero() || s.Digest == "" || s.Built != m.Metadata.Generation || c.here(s.Digest) {
			continue
		}
		rec := image.Record{
			Digest: s.Digest, Kind: image.KindImage, Format: s.Format, Size: s.Size, Stored: s.Stored, Guest: s.Guest, Packages: s.Packages,
		}
		if m.Spec.Recipe != nil {
			rec.Suite, rec.Recipe = m.Spec.Recipe.Suite, image.Key(*m.Spec.Recipe)
		}
		images = append(images, piece{"image " + key, rec})
	}
	for key, app := range c.apps {
		if c.agent.Applications[app.Spec.Delivery] == nil || !app.Metadata.Deleting.IsZero() {
			continue
		}
		for _, l := range app.Status.Layers {
			if l.Digest == "" || c.here(l.Digest) || !c.here(l.Image) && !needed[l.Digest] {
				continue
			}
			rec := image.Record{Digest: l.Digest, Kind: image.KindLayer, Format: estate.Raw, Size: l.Size, Stored: l.Size}
			if base, err := c.agent.Images.Get(l.Image); err == nil {
				rec.Suite = base.Suite
			}
			layers = append(layers, piece{"application " + key + " " + l.Version, rec})
		}
	}
	all := append(images, layers...)
	slices.SortStableFunc(all, func(a, b piece) int {
		if a.record.Kind != b.record.Kind {
			return strings.Compare(a.record.Kind, b.record.Kind) // image, layer
		}
		return strings.Compare(a.what, b.what)
	})
	return all
}

// layersHere returns the layers that machines of this host are granted.
func (a *Agent) layersHere() map[estate.Digest]bool {
	a.mu.Lock()
	keepers := make([]*keeper, 0, len(a.machines))
	for _, k := range a.machines {
		keepers = append(keepers, k)
	}
	a.mu.Unlock()
	needed := map[estate.Digest]bool{}
	for _, k := range keepers {
		m, _ := k.latest()
		if m == nil || m.Spec.Hypervisor != a.Hypervisor {
			continue
		}
		for _, l := range m.Spec.Layers {
			needed[l.Digest] = true
		}
	}
	return needed
}

// get fetches the piece. A stream that breaks off goes on where it was, maybe
// from another host; after a crash it begins anew.
func (f *fetcher) get(ctx context.Context, p piece) error {
	a := f.agent
	draft, err := a.Images.Draft()
	if err != nil {
		return err
	}
	defer draft.Discard()
	path := filepath.Join(draft.Dir, "content")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", p.what, err)
	}
	defer file.Close()
	var got int64
	for tries := 0; got < int64(p.record.Stored); tries++ {
		before := got
		err := f.part(ctx, p, file, path+".status", &got)
		if got > before {
			tries = 0
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fault.NotFound) && got == 0:
			return err
		case err != nil && tries+1 >= fetchTries:
			return fmt.Errorf("fetch %s: %w", p.what, err)
		case err != nil:
			select {
			case <-time.After(time.Second << tries):
			case <-ctx.Done():
			}
		}
	}
	// Commit reads what is on disk and refuses it unless it has the digest.
	if _, err := draft.Commit(ctx, path, p.record); err != nil {
		return fmt.Errorf("fetch %s: %w", p.what, err)
	}
	a.Log.Info("fetched from another host", "what", p.what, "bytes", got)
	return nil
}

// part takes as much as one stream gives.
func (f *fetcher) part(ctx context.Context, p piece, file *os.File, status string, got *int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(fetchSilence, func() { cancel(fault.Unavailable.Errorf("nothing came in %s", fetchSilence)) })
	defer silence.Stop()
	body, err := f.agent.Plane.Fetch(ctx, f.agent.Hypervisor, api.FetchRequest{Digest: p.record.Digest, From: *got})
	if err != nil {
		return err
	}
	defer body.Close()
	r := bufio.NewReaderSize(body, 256<<10)
	if err := takeStatus(r, status); err != nil {
		return err
	}
	var told time.Time
	buf := make([]byte, 256<<10)
	for left := int64(p.record.Stored) - *got; left > 0; left = int64(p.record.Stored) - *got {
		n, err := r.Read(buf[:min(left, int64(len(buf)))])
		if _, werr := file.Write(buf[:n]); werr != nil {
			return werr
		}
		*got += int64(n)
		silence.Reset(fetchSilence)
		if now := f.agent.Now(); now.Sub(told) >= fetchTold {
			told = now
			f.tell(p, *got)
		}
		if err != nil && *got < int64(p.record.Stored) {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fault.Unavailable.Errorf("the stream broke off after %d of %d bytes: %w", *got, p.record.Stored, err)
		}
	}
	return nil
}

func (f *fetcher) tell(p piece, got int64) {
	f.mu.Lock()
	f.now = &estate.Fetching{What: p.what, Content: p.record.Digest, Got: estate.Bytes(got), Of: p.record.Stored}
	f.mu.Unlock()
	f.agent.machinesChanged()
}

// parcel is the line before content on its way: how many bytes of the system's
// dpkg status come before the content itself.
type parcel struct {
	Status int64 `json:"status"`
}

// takeStatus puts away the dpkg status that comes before the content; layers
// are cut with its help.
func takeStatus(r *bufio.Reader, path string) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fault.Unavailable.Errorf("the stream did not begin: %w", err)
	}
	var head parcel
	if err := json.Unmarshal(line, &head); err != nil || head.Status < 0 || head.Status > largestStatus {
		return fault.Invalid.Errorf("the other host sends what is no content")
	}
	if head.Status == 0 {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, r, head.Status)
	return errors.Join(err, file.Close())
}

// sendContent answers another host's fetch.
func (a *Agent) sendContent(ctx context.Context, c api.Call) error {
	if c.Content == nil {
		return fault.Invalid.Errorf("a call for content says which")
	}
	e, err := a.Images.Get(c.Content.Digest)
	if err != nil {
		return err
	}
	file, err := os.Open(e.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(c.Content.From, io.SeekStart); err != nil {
		return err
	}
	var status []byte
	if e.Status != "" {
		if status, err = os.ReadFile(e.Status); err != nil {
			return err
		}
	}
	opening, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(opening, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	line, err := json.Marshal(parcel{int64(len(status))})
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(append(line, '\n'), status...)); err != nil {
		return nil // whoever asked has gone, or asks again
	}
	_, _ = io.Copy(conn, file)
	return nil
}
