// Package chain keeps frames of bytes in files so that one that was altered,
// taken out, moved or cut off is seen.
//
// A chain is a directory of segments. The first line of a segment names the
// chain, the number of the segment, the sequence of its first frame, the hash
// of the frame before it and what a crash left half-written at the end of the
// segment before. Every frame follows as
//
//	SEQUENCE TIME LENGTH HASH DATA\n
//
// with the time in nanoseconds since 1970 and the hash over the hash before,
// the first three fields and the data. Data without line ends makes a frame one
// line, so that a log can be read with the tools every system has.
//
// A segment is never appended to by another process than the one that began it:
// who opens a chain again begins the next segment. Hashes show that the inside
// of a chain was changed. That its end was cut off, or all of it written anew,
// only a Seal shows that is kept somewhere else.
package chain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// Largest is how many bytes the data of one frame may have.
const Largest = 16 << 20

// magic begins every segment.
const magic = "consort-chain 1"

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fault.Invalid.Errorf("%q is no SHA-256", text)
	}
	copy(h[:], b)
	return nil
}

// Frame is one entry of a chain.
type Frame struct {
	Sequence uint64 // 1 for the first of the chain
	Time     time.Time
	Data     []byte
}

// Seal says how far a segment had come. Kept apart from the files, it shows
// that what it covers is still there and as it was.
type Seal struct {
	Chain   string    `json:"chain" doc:"Which chain."`
	Segment int       `json:"segment" doc:"Which of its files, from 1."`
	Last    uint64    `json:"last" doc:"The last frame that the seal covers."`
	Hash    Hash      `json:"hash" doc:"The hash of that frame, which covers all before it."`
	Time    time.Time `json:"time" doc:"When that frame was written."`
}

// head is the first line of a segment.
type head struct {
	chain   string
	segment int
	first   uint64 // sequence of the first frame
	prev    Hash   // of the frame before it
	torn    int64  // bytes at the end of the segment before that are no frame
	tornSum Hash   // their hash
}

func (h head) line() string {
	return fmt.Sprintf("%s %s %d %d %s %d %s\n", magic, h.chain, h.segment, h.first, h.prev, h.torn, h.tornSum)
}

// start is the hash before the first frame of the segment.
func (h head) start() Hash { return sha256.Sum256([]byte(h.line())) }

// parseHead reads a first line back. Only the form that line writes is one.
func parseHead(line string) (head, bool) {
	var h head
	rest, ok := strings.CutPrefix(line, magic+" ")
	f := strings.Split(strings.TrimSuffix(rest, "\n"), " ")
	if !ok || len(f) != 6 {
		return h, false
	}
	var errs [5]error
	h.chain = f[0]
	h.segment, errs[0] = strconv.Atoi(f[1])
	h.first, errs[1] = strconv.ParseUint(f[2], 10, 64)
	errs[2] = h.prev.UnmarshalText([]byte(f[3]))
	h.torn, errs[3] = strconv.ParseInt(f[4], 10, 64)
	errs[4] = h.tornSum.UnmarshalText([]byte(f[5]))
	return h, errs == [5]error{} && h.line() == line
}

// next returns the hash of a frame that comes after the hash, and the fields
// before it.
func next(prev Hash, sequence uint64, at int64, data []byte) (fields string, sum Hash) {
	fields = fmt.Sprintf("%d %d %d", sequence, at, len(data))
	d := sha256.New()
	d.Write(prev[:])
	d.Write([]byte(fields + "\n"))
	d.Write(data)
	d.Sum(sum[:0])
	return fields, sum
}

// suffix ends the name of a segment's file.
const suffix = ".chain"

// fileOf returns the file of a segment.
func fileOf(dir string, segment int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", segment, suffix))
}

// segments returns the numbers of the segments in the directory, in order. An
// absent directory has none.
func segments(dir string) ([]int, error) {
	all, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Unavailable.Errorf("read the chain: %w", err)
	}
	var ns []int
	for _, e := range all {
		name, is := strings.CutSuffix(e.Name(), suffix)
		if n, err := strconv.Atoi(name); is && err == nil && fileOf(dir, n) == filepath.Join(dir, e.Name()) {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns, nil
}
