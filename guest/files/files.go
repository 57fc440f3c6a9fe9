// Package files carries one file into or out of a guest, as the person whose
// desktop it is: nothing of it is done as root, or outside that person's home.
package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// Chunk is how many bytes go in one command: half of what the contract with
// hypervisors has room for, since some carry them in base64.
const Chunk = 512 << 10

// dropTime is how long a guest may take to forget half a file.
const dropTime = 30 * time.Second

//go:embed step.sh
var step string

// Run runs a command in the guest as its administrator.
type Run func(ctx context.Context, args []string, stdin []byte) (exit int, stdout, stderr []byte, err error)

// File is a file in a guest.
type File struct {
	Run  Run
	User string // the account whose home it is in
	Path string // within that home; see estate.FileProblem
}

// become is run by root and becomes the person for good. The account's own
// environment is all that the step gets.
const become = `set -eu
user=$1 step=$2
shift 2
id -u -- "$user" >/dev/null
exec setpriv --reuid "$user" --regid "$(id -g -- "$user")" --init-groups --no-new-privs --reset-env /bin/sh -c "$step" step "$@"`

// reasons says what an exit of the step means.
var reasons = map[int]struct {
	kind fault.Kind
	text string
}{
	20: {fault.Unavailable, "the desktop's person has no home folder"},
	21: {fault.Denied, "it is not inside the home folder"},
	22: {fault.Unavailable, "the folder cannot be written to"},
	23: {fault.Exists, "there is one of that name; choose another"},
	24: {fault.NoCapacity, "the desktop's disk took no more"},
	25: {fault.Unavailable, "what is in the desktop is not what was sent; send it again"},
	26: {fault.NotFound, "there is none"},
	27: {fault.Invalid, "it is not a file that can be read"},
}

var (
	partRule = regexp.MustCompile(`^\.consort-[A-Za-z0-9]{10}\.part$`)
	sizeRule = regexp.MustCompile(`^[0-9]{1,18}$`)
)

// step runs one step. The guest is not trusted with what it prints.
func (f File) step(ctx context.Context, stdin []byte, verb string, more ...string) ([]byte, error) {
	args := append([]string{"/bin/sh", "-c", become, "files", f.User, step, verb, f.Path}, more...)
	exit, out, said, err := f.Run(ctx, args, stdin)
	if err != nil {
		return nil, err
	}
	if exit == 0 {
		return out, nil
	}
	if r, known := reasons[exit]; known {
		return nil, r.kind.Errorf("%s: %s", f.Path, r.text)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	return nil, fault.Unavailable.Errorf("%s: the desktop ended the step %q with %d: %.200q", f.Path, verb, exit, line)
}

// Part is a file on its way into a guest. Nobody there sees it by its name
// before End; Drop leaves nothing of it.
type Part struct {
	file File
	name string
	sum  []byte
}

// Begin makes the file's folder and a place for it. One that is there already is
// fault.Exists.
func (f File) Begin(ctx context.Context) (*Part, error) {
	out, err := f.step(ctx, nil, "begin")
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(string(out))
	if !partRule.MatchString(name) {
		return nil, fault.Unavailable.Errorf("%s: the desktop made no place for it", f.Path)
	}
	return &Part{file: f, name: name}, nil
}

// Fill carries everything r yields into the part, and no more than a chunk of it
// is held.
func (p *Part) Fill(ctx context.Context, r io.Reader) error {
	sum := sha256.New()
	chunk := make([]byte, Chunk)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			sum.Write(chunk[:n])
			if _, err := p.file.step(ctx, chunk[:n], "add", p.name); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			p.sum = sum.Sum(nil)
			return nil
		default:
			return err
		}
	}
}

// End gives the file its name, once the guest has found it whole, and returns its
// SHA-256 in hexadecimal digits.
func (p *Part) End(ctx context.Context) (digest string, err error) {
	digest = hex.EncodeToString(p.sum)
	_, err = p.file.step(ctx, nil, "end", p.name, digest)
	return digest, err
}

// Drop forgets the part, also when ctx has ended. What an unreachable guest keeps
// of it is removed when the next file comes to that folder, an hour later.
func (p *Part) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	_, err := p.file.step(ctx, nil, "drop", p.name)
	return err
}

// Size returns how long the file is.
func (f File) Size(ctx context.Context) (int64, error) {
	out, err := f.step(ctx, nil, "size")
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(out))
	if !sizeRule.MatchString(text) {
		return 0, fault.Unavailable.Errorf("%s: the desktop does not say how long it is", f.Path)
	}
	return strconv.ParseInt(text, 10, 64)
}

// Copy writes so many bytes of the file to w and returns their SHA-256 in
// hexadecimal digits. A file that has become shorter is fault.Conflict.
func (f File) Copy(ctx context.Context, w io.Writer, size int64) (digest string, err error) {
	sum := sha256.New()
	for at := int64(0); at < size; {
		want := min(size-at, Chunk)
		out, err := f.step(ctx, nil, "read", fmt.Sprint(at), fmt.Sprint(want))
		if err != nil {
			return "", err
		}
		if int64(len(out)) != want {
			return "", fault.Conflict.Errorf("%s: it changed while it was read; try again", f.Path)
		}
		sum.Write(out)
		if _, err := io.Copy(w, bytes.NewReader(out)); err != nil {
			return "", err
		}
		at += want
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
