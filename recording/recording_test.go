package recording_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/recording"
)

func keeper(dir string, kv store.KV) *recording.Keeper {
	return recording.New(recording.Options{Dir: dir, KV: kv, Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
}

func begin(t *testing.T, k *recording.Keeper, failed func(error)) *recording.Tape {
	t.Helper()
	tape, err := k.Begin(t.Context(), recording.Info{Project: "p", Session: "s", Person: "ana"}, failed)
	if err != nil {
		t.Fatal(err)
	}
	return tape
}

func played(k *recording.Keeper, id string) (all []recording.Piece, err error) {
	err = k.Play(context.Background(), id, func(p recording.Piece) error { all = append(all, p); return nil })
	return all, err
}

func TestWhatWasShownIsPlayed(t *testing.T) {
	k := keeper(t.TempDir(), mem.Open(mem.Options{}))
	tape := begin(t, k, nil)
	big := bytes.Repeat([]byte("picture"), 300_000) // more than a frame, and than what waits
	for _, data := range [][]byte{[]byte("one"), {}, big, []byte("\n\x00")} {
		if err := tape.Add(recording.Shown, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tape.Add(recording.Event, []byte("first-frame")); err != nil {
		t.Fatal(err)
	}
	if err := tape.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := played(k, tape.ID())
	if err != nil || len(all) != 5 {
		t.Fatalf("played %d pieces, %v; want 5", len(all), err)
	}
	if string(all[0].Data) != "one" || len(all[1].Data) != 0 || !bytes.Equal(all[2].Data, big) || string(all[3].Data) != "\n\x00" || all[4].Kind != recording.Event {
		t.Error("the pieces are not those that were recorded")
	}
	list, err := k.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != tape.ID() || list[0].Person != "ana" || list[0].Ended.IsZero() || list[0].Bytes < int64(len(big)) {
		t.Errorf("list = %+v, %v", list, err)
	}
	for _, id := range []string{"", "../" + tape.ID(), strings.Repeat("0", 32)} {
		if _, err := played(k, id); !errors.Is(err, fault.NotFound) {
			t.Errorf("play %q: %v, want that there is none", id, err)
		}
	}
}

// TestWhatIsAlteredIsNotPlayed flips bits all over the file, and cuts its end off.
func TestWhatIsAlteredIsNotPlayed(t *testing.T) {
	dir := t.TempDir()
	k := keeper(dir, mem.Open(mem.Options{}))
	tape := begin(t, k, nil)
	for i := range 50 {
		if err := tape.Add(recording.Shown, fmt.Appendf(nil, "picture %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tape.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, tape.ID(), "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	was, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, is []byte, whole bool) {
		t.Helper()
		if err := os.WriteFile(files[0], is, 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := played(k, tape.ID())
		if whole && (err != nil || len(all) != 50) {
			t.Errorf("%s: played %d, %v; want all", what, len(all), err)
		}
		if !whole && (!errors.Is(err, fault.Conflict) || len(all) > 0) {
			t.Errorf("%s: played %d pieces, %v; want none and a conflict", what, len(all), err)
		}
	}
	for i := 0; i < len(was); i += 7 {
		is := bytes.Clone(was)
		is[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("a flipped bit of byte %d of %d", i, len(was)), is, false)
	}
	lines := bytes.SplitAfter(was, []byte("\n"))
	try("its end cut off", bytes.Join(lines[:len(lines)-2], nil), false)
	try("as it was", was, true)
}

// telling is a store that says aloud what is committed.
type telling struct{ store.KV }

func (k telling) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	for _, w := range txn.Then {
		fmt.Printf("seal %s %s\n", w.Key, w.Value)
	}
	return k.KV.Commit(ctx, txn)
}

// recordForEver records a number every ten milliseconds and says when.
func recordForEver(dir string) {
	k := keeper(dir, telling{mem.Open(mem.Options{})})
	tape, err := k.Begin(context.Background(), recording.Info{Person: "ana"}, nil)
	for i := 0; err == nil; i++ {
		err = tape.Add(recording.Shown, []byte(strconv.Itoa(i)))
		fmt.Printf("shown %d %d\n", i, time.Now().UnixMilli())
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("broken", err)
	os.Exit(1)
}

// TestAKillLosesLittle has another process record until it is killed, and wants
// everything that was shown ten seconds before, and all that is there whole.
func TestAKillLosesLittle(t *testing.T) {
	if dir := os.Getenv("RECORDING_TEST_DIR"); dir != "" {
		recordForEver(dir)
	}
	if testing.Short() {
		t.Skip("records for seconds")
	}
	dir, kv := t.TempDir(), mem.Open(mem.Options{})
	cmd := exec.Command(os.Args[0], "-test.run=^TestAKillLosesLittle$")
	cmd.Env = append(os.Environ(), "RECORDING_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	began, shown, id := time.Now(), []int64{}, ""
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), " ", 3)
		switch {
		case f[0] == "shown" && len(f) == 3:
			at, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, at)
		case f[0] == "seal" && len(f) == 3:
			id = filepath.Base(f[1])
			if _, err := kv.Commit(t.Context(), store.Txn{Then: []store.Write{{Key: f[1], Value: []byte(f[2])}}}); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal(lines.Text())
		}
		if time.Since(began) > 12*time.Second {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	killed := time.Now().UnixMilli()
	_ = cmd.Wait()
	all, err := played(keeper(dir, kv), id)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		if string(p.Data) != strconv.Itoa(i) {
			t.Fatalf("piece %d is %q", i, p.Data)
		}
	}
	if len(all) == 0 || len(all) > len(shown) {
		t.Fatalf("%d pieces of %d", len(all), len(shown))
	}
	last := time.Duration(killed-shown[len(all)-1]) * time.Millisecond
	t.Logf("%d of %d pieces are there; the last was shown %s before the kill", len(all), len(shown), last)
	if last > 10*time.Second {
		t.Errorf("the last %s are lost, want at most 10 s", last)
	}
	if sealed, err := keeper(dir, kv).List(t.Context()); err != nil || len(sealed) != 1 || sealed[0].Bytes == 0 || !sealed[0].Ended.IsZero() {
		t.Errorf("list = %+v, %v; want one that has not ended, sealed on its way", sealed, err)
	}
}

// away is a store that takes no more once it is off.
type away struct {
	store.KV
	off atomic.Bool
}

func (k *away) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if k.off.Load() {
		return 0, fault.Unavailable.Errorf("the store is away")
	}
	return k.KV.Commit(ctx, txn)
}

func TestARecordingThatCannotBeSealedEnds(t *testing.T) {
	kv := &away{KV: mem.Open(mem.Options{})}
	var ahead atomic.Int64
	k := recording.New(recording.Options{
		Dir: t.TempDir(), KV: kv, Random: rand.Reader, Every: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	failed := make(chan error, 10)
	tape := begin(t, k, func(err error) { failed <- err })
	kv.off.Store(true)
	select {
	case err := <-failed:
		t.Fatalf("it ended within a moment: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	ahead.Store(int64(11 * time.Second))
	if err := <-failed; !errors.Is(err, fault.Unavailable) {
		t.Errorf("it failed with %v", err)
	}
	if err := tape.Add(recording.Shown, []byte("more")); err == nil {
		t.Error("it takes more")
	}
	kv.off.Store(false)
	_ = tape.Close()
	if len(failed) > 0 {
		t.Error("it failed twice")
	}
	kv.off.Store(true)
	if _, err := k.Begin(t.Context(), recording.Info{}, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("another begins with %v", err)
	}
}
