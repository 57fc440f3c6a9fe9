package chain_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
)

// clock goes on a second each time it is read.
func clock() func() time.Time {
	at := time.Unix(1_700_000_000, 0)
	return func() time.Time { at = at.Add(time.Second); return at }
}

func open(t *testing.T, dir string, seals ...chain.Seal) *chain.Writer {
	t.Helper()
	w, err := chain.Open(dir, chain.Options{Now: clock(), Random: rand.Reader, Seals: seals})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func appendTo(t *testing.T, w *chain.Writer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := w.Append([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
}

// written makes a chain of three segments with nine frames and returns the
// seals of its segments.
func written(t *testing.T, dir string) []chain.Seal {
	t.Helper()
	w := open(t, dir)
	var seals []chain.Seal
	for n := range 3 {
		appendTo(t, w, fmt.Sprintf("%d alpha", n), fmt.Sprintf("%d beta", n), fmt.Sprintf("%d gamma", n))
		seal, err := w.Head(), error(nil)
		if n < 2 {
			seal, err = w.Rotate()
		}
		if err != nil {
			t.Fatal(err)
		}
		seals = append(seals, seal)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return seals
}

func verify(t *testing.T, dir string, seals []chain.Seal) chain.Report {
	t.Helper()
	r, err := chain.Verify(context.Background(), dir, seals)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.chain"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	return all
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWholeChainVerifiesAndReadsBack(t *testing.T) {
	dir := t.TempDir()
	seals := written(t, dir)
	r := verify(t, dir, seals)
	if r.Broken != nil || r.Frames != 9 || r.First != 1 || r.Last != 9 || r.Sealed != 9 || r.Segments != 3 || len(r.Torn) != 0 {
		t.Errorf("verify = %+v, broken %v", r, r.Broken)
	}
	for after := range uint64(10) {
		var got []uint64
		if err := chain.Read(context.Background(), dir, after, func(f chain.Frame) error {
			got = append(got, f.Sequence)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) != int(9-after) || len(got) > 0 && (got[0] != after+1 || got[len(got)-1] != 9) {
			t.Errorf("read after %d = %v", after, got)
		}
	}
}

func TestFramesOfAnyBytesComeBack(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	want := [][]byte{{}, []byte("\n"), []byte("1 2 3 4\n5"), bytes.Repeat([]byte{0}, 100_000)}
	if _, err := w.Append(want...); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	if err := chain.Read(context.Background(), dir, 0, func(f chain.Frame) error { got = append(got, f.Data); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("read %d frames, not those written", len(got))
	}
	if r := verify(t, dir, []chain.Seal{w.Head()}); r.Broken != nil || r.Frames != 4 {
		t.Errorf("verify = %+v", r)
	}
}

// TestEveryFlippedBitIsFound flips one bit of every byte of every segment.
func TestEveryFlippedBitIsFound(t *testing.T) {
	dir := t.TempDir()
	seals := written(t, dir)
	for _, file := range files(t, dir) {
		was := read(t, file)
		for i := range was {
			is := bytes.Clone(was)
			is[i] ^= 1 << (i % 8)
			write(t, file, is)
			r := verify(t, dir, seals)
			line := 1 + bytes.Count(was[:i], []byte("\n"))
			switch b := r.Broken; {
			case b == nil:
				t.Fatalf("%s: a flipped bit of byte %d is not seen", file, i)
			case b.File != file || b.Line != line:
				t.Fatalf("%s: a flipped bit in line %d is said to be at %s:%d", file, line, b.File, b.Line)
			}
		}
		write(t, file, was)
	}
	if r := verify(t, dir, seals); r.Broken != nil {
		t.Errorf("put back as it was: %v", r.Broken)
	}
}

// TestDamageIsFound has one line for each way to do away with a record.
func TestDamageIsFound(t *testing.T) {
	lines := func(b []byte) []string { return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n") }
	join := func(ls ...string) []byte { return []byte(strings.Join(ls, "")) }
	for name, c := range map[string]struct {
		harm func(t *testing.T, fs []string)
		file int // 0 is the first
		line int
	}{
		"removed record": {func(t *testing.T, fs []string) {
			l := lines(read(t, fs[1]))
			write(t, fs[1], join(l[0], l[1], l[3]+"\n"))
		}, 1, 3},
		"swapped pair": {func(t *testing.T, fs []string) {
			l := lines(read(t, fs[1]))
			write(t, fs[1], join(l[0], l[2], l[1], l[3]+"\n"))
		}, 1, 2},
		"record twice": {func(t *testing.T, fs []string) {
			l := lines(read(t, fs[0]))
			write(t, fs[0], join(l[0], l[1], l[1], l[2], l[3]+"\n"))
		}, 0, 3},
		"record of another segment": {func(t *testing.T, fs []string) {
			l, m := lines(read(t, fs[0])), lines(read(t, fs[1]))
			write(t, fs[0], join(l[0], m[1], l[2], l[3]+"\n"))
		}, 0, 2},
		"tail of the last cut off": {func(t *testing.T, fs []string) {
			l := lines(read(t, fs[2]))
			write(t, fs[2], join(l[0], l[1], l[2]))
		}, 2, 4},
		"all records of the last cut off": {func(t *testing.T, fs []string) {
			write(t, fs[2], join(lines(read(t, fs[2]))[0]))
		}, 2, 2},
		"tail of an inner one cut off": {func(t *testing.T, fs []string) {
			l := lines(read(t, fs[1]))
			write(t, fs[1], join(l[0], l[1], l[2]))
		}, 1, 4},
		"bytes after the last record of an inner one": {func(t *testing.T, fs []string) {
			write(t, fs[0], append(read(t, fs[0]), "4 1"...))
		}, 0, 5},
		"first segment removed": {func(t *testing.T, fs []string) { os.Remove(fs[0]) }, 0, 1},
		"inner segment removed": {func(t *testing.T, fs []string) { os.Remove(fs[1]) }, 1, 1},
		"last segment removed":  {func(t *testing.T, fs []string) { os.Remove(fs[2]) }, 2, 1},
		"segment of another chain": {func(t *testing.T, fs []string) {
			other := t.TempDir()
			written(t, other)
			write(t, fs[1], read(t, filepath.Join(other, filepath.Base(fs[1]))))
		}, 1, 1},
		"everything of another chain": {func(t *testing.T, fs []string) {
			other := t.TempDir()
			written(t, other)
			for _, f := range fs {
				write(t, f, read(t, filepath.Join(other, filepath.Base(f))))
			}
		}, 0, 1},
		"two segments change places": {func(t *testing.T, fs []string) {
			a, b := read(t, fs[1]), read(t, fs[2])
			write(t, fs[1], b)
			write(t, fs[2], a)
		}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			seals := written(t, dir)
			fs := files(t, dir)
			c.harm(t, fs)
			b := verify(t, dir, seals).Broken
			if b == nil {
				t.Fatal("not seen")
			}
			if b.File != fs[c.file] || b.Line != c.line {
				t.Errorf("found at %s:%d (%s), want %s:%d", b.File, b.Line, b.Why, fs[c.file], c.line)
			}
		})
	}
}

// TestRewrittenTailIsFound has somebody with the files, and not the seals,
// write the last records anew with hashes that fit each other.
func TestRewrittenTailIsFound(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	appendTo(t, w, "ana signs in", "ana takes the plans")
	seal := w.Head()
	w.Close()
	if r := verify(t, dir, []chain.Seal{seal}); r.Broken != nil {
		t.Fatal(r.Broken)
	}
	file := files(t, dir)[0]
	l := strings.SplitAfter(string(read(t, file)), "\n")
	prev, err := hex.DecodeString(strings.Fields(l[1])[3])
	if err != nil {
		t.Fatal(err)
	}
	data := "bob takes the plans"
	fields := fmt.Sprintf("2 %s %d", strings.Fields(l[2])[1], len(data))
	sum := sha256.Sum256(append(prev, fields+"\n"+data...))
	write(t, file, fmt.Appendf(nil, "%s%s%s %x %s\n", l[0], l[1], fields, sum, data))
	if r := verify(t, dir, nil); r.Broken != nil || r.Frames != 2 {
		t.Fatalf("the forged record does not fit, so this test shows nothing: %v", r.Broken)
	}
	if r := verify(t, dir, []chain.Seal{seal}); r.Broken == nil || r.Broken.Sequence != 2 {
		t.Errorf("a forged tail: %v, want record 2", r.Broken)
	}
}

// TestCrashAtEveryByte cuts the file as a crash may: what was sealed must be
// there, what was torn is reported and stays so, and the chain goes on.
func TestCrashAtEveryByte(t *testing.T) {
	whole := t.TempDir()
	w := open(t, whole)
	appendTo(t, w, "one", "two")
	seal := w.Head()
	sealed := len(read(t, files(t, whole)[0]))
	if _, err := w.Append([]byte("three"), []byte("four")); err != nil {
		t.Fatal(err)
	}
	all := read(t, files(t, whole)[0])
	for cut := len(strings.SplitAfter(string(all), "\n")[0]); cut <= len(all); cut++ {
		dir := t.TempDir()
		file := filepath.Join(dir, filepath.Base(files(t, whole)[0]))
		write(t, file, all[:cut])
		lines := bytes.Count(all[:cut], []byte("\n"))
		torn := all[cut-1] != '\n'
		again := open(t, dir, seal)
		appendTo(t, again, "after")
		last := again.Head()
		if _, told := again.Torn(); told != torn {
			t.Fatalf("cut at %d: torn = %v, want %v", cut, told, torn)
		}
		r := verify(t, dir, []chain.Seal{seal, last})
		switch {
		case cut < sealed && r.Broken == nil:
			t.Fatalf("cut at %d, before the seal at %d: not seen", cut, sealed)
		case cut < sealed:
			continue
		case r.Broken != nil:
			t.Fatalf("cut at %d, after the seal: %v", cut, r.Broken)
		case int(r.Frames) != lines: // those before the cut without the head, and the one after
			t.Fatalf("cut at %d: %d records, want %d", cut, r.Frames, lines)
		case torn != (len(r.Torn) == 1):
			t.Fatalf("cut at %d: torn = %v, want one: %v", cut, r.Torn, torn)
		}
		again.Close()
	}
}

// TestTornTailCannotBeChangedLater: what a crash left is evidence too.
func TestTornTailCannotBeChangedLater(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	appendTo(t, w, "one")
	file := files(t, dir)[0]
	was := read(t, file)
	write(t, file, append(bytes.Clone(was), "2 17000"...))
	again := open(t, dir)
	appendTo(t, again, "two")
	if r := verify(t, dir, nil); r.Broken != nil || len(r.Torn) != 1 || r.Torn[0].Bytes != 7 || r.Torn[0].Line != 3 {
		t.Fatalf("as it was left: %+v %v", r, r.Broken)
	}
	write(t, file, append(bytes.Clone(was), "2 17001"...))
	if r := verify(t, dir, nil); r.Broken == nil || r.Broken.File != file || r.Broken.Line != 3 {
		t.Errorf("the torn tail was altered: %v, want line 3 of %s", r.Broken, file)
	}
	write(t, file, was)
	if r := verify(t, dir, nil); r.Broken == nil || r.Broken.File != files(t, dir)[1] {
		t.Errorf("the torn tail was tidied away: %v, want the segment after it to miss it", r.Broken)
	}
}

func TestAppendWritesAllOrNothingAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	appendTo(t, w, "one")
	_, err := w.Append([]byte("two"), make([]byte, chain.Largest+1))
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("a frame too large: %v, want invalid", err)
	}
	appendTo(t, w, "two")
	if r := verify(t, dir, []chain.Seal{w.Head()}); r.Broken != nil || r.Frames != 2 {
		t.Errorf("after a refused one: %+v %v, want two records", r, r.Broken)
	}
}

func TestRetiredSegmentsAreNoBreak(t *testing.T) {
	dir := t.TempDir()
	seals := written(t, dir)
	if err := chain.Retire(dir, 2); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, seals[1:]); r.Broken != nil || r.First != 4 {
		t.Errorf("the oldest retired: %+v %v", r, r.Broken)
	}
	if r := verify(t, dir, seals); r.Broken == nil || r.Broken.Line != 1 {
		t.Error("the oldest removed while its seal is kept: not seen")
	}
}

func TestSegmentsEndByAgeAndSize(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	w, err := chain.Open(t.TempDir(), chain.Options{Now: func() time.Time { return at }, Random: rand.Reader, Largest: 1000, Oldest: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	at = at.Add(2 * time.Hour)
	if w.Due() {
		t.Error("an empty segment is due")
	}
	appendTo(t, w, "one")
	if !w.Due() {
		t.Error("two hours old and not due")
	}
	if _, err := w.Rotate(); err != nil || w.Due() {
		t.Errorf("a fresh segment is due; rotating: %v", err)
	}
	appendTo(t, w, strings.Repeat("x", 1000))
	if !w.Due() {
		t.Error("a thousand bytes and not due")
	}
}

func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	w, err := chain.Open(dir, chain.Options{Now: clock(), Random: rand.Reader})
	if err != nil {
		f.Fatal(err)
	}
	_, _ = w.Append([]byte("one"), []byte("two"))
	seal := w.Head()
	w.Close()
	name := filepath.Join(dir, "00000001.chain")
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("consort-chain 1 x 1 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "00000001.chain"), b)
		r := verify(t, dir, []chain.Seal{seal})
		if r.Broken == nil && !bytes.HasPrefix(b, good) {
			t.Fatalf("%q passes for what was sealed", b)
		}
	})
}
