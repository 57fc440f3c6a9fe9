package agent_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// disk writes a file that an image can be made from.
func disk(t *testing.T, size int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(data)
	path = filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// offer creates an image made from the file.
func (h *house) offer(path string) {
	h.t.Helper()
	h.must(h.store.Create(h.t.Context(), &estate.Image{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Image", Metadata: estate.Metadata{Name: "office", Project: "p"}},
		Spec: estate.ImageSpec{Import: &estate.Import{Path: path, Format: estate.Raw}},
	}))
}

func (h *house) image() *estate.ImageStatus {
	m, err := store.Get[estate.Image](h.t.Context(), h.store, "p", "office")
	h.must(err)
	return &m.Status
}

// holds reports whether the host has the content.
func (h *house) holds(d estate.Digest) bool {
	_, err := h.images.Get(d)
	return d != "" && err == nil
}

func TestContentIsMadeOnceAndFetchedByTheOthers(t *testing.T) {
	h := newHouse(t)
	path, data := disk(t, 3<<20)
	h.offer(path)
	there := h.beside("there")
	h.employ()
	there.employ()
	h.until("both have the image", func() bool { return h.holds(h.image().Digest) && there.holds(h.image().Digest) })
	if made := "making image"; h.logs.heard(made) == there.logs.heard(made) {
		t.Errorf("made by here: %v, by there: %v; want one of them", h.logs.heard(made), there.logs.heard(made))
	}
	digest := h.image().Digest
	for _, at := range []*house{h, there} {
		e, err := at.images.Get(digest)
		h.must(err)
		got, err := os.ReadFile(e.Path)
		h.must(err)
		if !bytes.Equal(got, data) || e.Format != estate.Raw || e.Stored != estate.Bytes(len(data)) {
			t.Errorf("%s has %d bytes of %s, %+v", at.name, len(got), e.Format, e.Record)
		}
	}
	// The file goes: who comes later has it from the others all the same.
	h.must(os.Remove(path))
	late := h.beside("late")
	late.employ()
	h.until("the late one has it", func() bool { return late.holds(digest) })
	if now := h.image(); now.Digest != digest || !now.Is(estate.Ready) {
		t.Errorf("the image is now %+v", now)
	}
}

func TestALayerIsCutOnceAndFetchedByTheOthers(t *testing.T) {
	h := newHouse(t)
	path, _ := disk(t, 4096)
	h.offer(path)
	h.employ()
	h.until("the image is there", func() bool { return h.holds(h.image().Digest) })
	layer := h.content("layer", "an application")
	entry, err := h.images.Get(layer)
	h.must(err)
	h.must(h.store.Create(t.Context(), &estate.Application{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Application", Metadata: estate.Metadata{Name: "calc", Project: "p"}},
		Spec: estate.ApplicationSpec{Title: "Calc", Delivery: "fakeapps", Command: []string{"calc"}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"calc"}}}},
		Status: estate.ApplicationStatus{Layers: []estate.LayerBuild{
			{Version: "1", Image: h.image().Digest, Digest: layer, Size: entry.Stored},
		}},
	}))
	there := h.beside("there")
	there.employ()
	h.until("the other host has the layer", func() bool { return there.holds(layer) })
}

func TestWhatNoHostHasAnyMoreIsMadeAgain(t *testing.T) {
	h := newHouse(t)
	path, _ := disk(t, 4096)
	h.offer(path)
	kill := h.employ()
	h.until("the image is there", func() bool { return h.holds(h.image().Digest) })
	digest := h.image().Digest
	kill()
	h.must(h.images.Delete(digest))
	h.employ()
	h.until("the image is there again", func() bool { return h.holds(digest) })
}

func TestNothingIsMadeAgainWhileAHostThatMayHaveItIsAway(t *testing.T) {
	h := newHouse(t)
	path, _ := disk(t, 4096)
	h.offer(path)
	kill := h.employ()
	h.until("the image is there", func() bool { return h.holds(h.image().Digest) })
	digest := h.image().Digest
	kill()
	there := h.beside("there")
	there.employ()
	var asked atomic.Bool
	h.until("the other host has asked for it", func() bool {
		_, err := api.Get[estate.Hypervisor](t.Context(), there.client(), "", "there")
		if err == nil && !asked.Load() {
			_, err := there.client().Fetch(t.Context(), "there", api.FetchRequest{Digest: digest})
			if err == nil || !strings.Contains(err.Error(), "hypervisor here does not answer") {
				t.Fatalf("fetch: %v, want that here does not answer", err)
			}
			asked.Store(true)
		}
		return asked.Load()
	})
	if there.holds(digest) {
		t.Error("it was made again")
	}
	h.employ()
	h.until("it comes from the host that is back", func() bool { return there.holds(digest) })
}

// client speaks to the plane beside the agent.
func (h *house) client() *api.Client {
	c, err := api.NewClient(api.Options{Server: h.plane.URL})
	h.must(err)
	h.t.Cleanup(c.Close)
	return c
}

// torn cuts each fetch short.
type torn struct {
	after int64 // bytes
	mu    sync.Mutex
	from  []string // the bodies of fetches
}

func (c *torn) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	c.from = append(c.from, string(body))
	c.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	next.ServeHTTP(&short{w, c.after}, r)
}

// short breaks the connection after so many bytes.
type short struct {
	http.ResponseWriter
	left int64
}

func (s *short) Write(p []byte) (int, error) {
	if s.left -= int64(len(p)); s.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return s.ResponseWriter.Write(p)
}

func (s *short) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func TestAFetchGoesOnWhereItBroke(t *testing.T) {
	h := newHouse(t)
	path, _ := disk(t, 3<<20)
	h.offer(path)
	h.employ()
	h.until("the image is there", func() bool { return h.holds(h.image().Digest) })
	cut := &torn{after: 1 << 20}
	h.torn.Store(cut)
	there := h.beside("there")
	there.employ()
	h.until("the other host has it", func() bool { return there.holds(h.image().Digest) })
	cut.mu.Lock()
	defer cut.mu.Unlock()
	later := 0
	for _, body := range cut.from {
		if strings.Contains(body, `"from":`) {
			later++
		}
	}
	if len(cut.from) < 3 || later < len(cut.from)-1 {
		t.Errorf("fetched by %q; want it to go on where it broke", cut.from)
	}
}

func TestContentThatIsNotWhatItsDigestSaysIsRefused(t *testing.T) {
	h := newHouse(t)
	path, _ := disk(t, 4096)
	h.offer(path)
	h.employ()
	h.until("the image is there", func() bool { return h.holds(h.image().Digest) })
	digest := h.image().Digest
	e, err := h.images.Get(digest)
	h.must(err)
	h.must(os.Chmod(e.Path, 0o600))
	f, err := os.OpenFile(e.Path, os.O_WRONLY, 0)
	h.must(err)
	_, err = f.WriteAt([]byte("evil"), 100)
	h.must(err)
	h.must(f.Close())
	there := h.beside("there")
	there.employ()
	h.until("the other host refused it", func() bool { return there.logs.heard("it hashes to") })
	if there.holds(digest) {
		t.Error("it was taken")
	}
}
