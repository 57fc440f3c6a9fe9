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
	"strconv"
	"strings"

	"consort.dev/consort/fault"
)

// mostScript is the longest script of a package that is read.
const mostScript = 1 << 20

// deed is something a package's script would do to the file system, told apart
// by reading the script: it is never run. Two things are understood, where they
// are written out in full: ucf, which puts a file of the package under /etc,
// and update-alternatives, which makes a link. Everything else is left out; what
// needs the merged system (caches of schemas and the like) is made in the guest.
type deed struct {
	copies   bool // else links
	from, to string
	priority int
}

// settle reads the script a package runs after it is unpacked and does its
// deeds in the tree.
func settle(ctx context.Context, t *tree, deb string) error {
	text, err := postinst(ctx, deb)
	if err != nil {
		return fault.KindOf(err).Errorf("read the script of %s: %w", path.Base(deb), err)
	}
	for _, d := range deeds(text) {
		if err := t.do(d, path.Base(deb)); err != nil {
			return err
		}
	}
	return nil
}

// postinst returns the package's script, or "" when it has none.
func postinst(ctx context.Context, deb string) (string, error) {
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--ctrl-tarfile", deb)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fault.Invalid.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	archive := tar.NewReader(bytes.NewReader(out))
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", fault.Invalid.Errorf("read the archive: %w", err)
		}
		if path.Clean(h.Name) == "postinst" && h.Typeflag == tar.TypeReg {
			text, err := io.ReadAll(io.LimitReader(archive, mostScript))
			return string(text), err
		}
	}
}

// deeds returns what a script does that we understand, in its order.
func deeds(script string) []deed {
	script = strings.ReplaceAll(script, "\\\n", " ")
	var ds []deed
	for line := range strings.Lines(script) {
		for _, command := range strings.FieldsFunc(line, func(r rune) bool { return r == ';' || r == '&' || r == '|' }) {
			words, ok := literal(command)
			if !ok || len(words) == 0 {
				continue
			}
			switch path.Base(words[0]) {
			case "ucf":
				ds = append(ds, copied(words[1:])...)
			case "update-alternatives":
				ds = append(ds, linked(words[1:])...)
			}
		}
	}
	return ds
}

// copied reads the arguments of ucf.
func copied(args []string) []deed {
	var files []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			files = append(files, a)
		}
	}
	if len(files) != 2 || !path.IsAbs(files[0]) || !path.IsAbs(files[1]) {
		return nil
	}
	return []deed{{copies: true, from: files[0], to: files[1]}}
}

// linked reads "--install link name path priority [--slave link name path]...".
func linked(args []string) []deed {
	var ds []deed
	priority := 0
	for len(args) > 3 {
		skip := 4
		switch args[0] {
		case "--install":
			if len(args) < 5 {
				return ds
			}
			priority, _ = strconv.Atoi(args[4])
			skip = 5
		case "--slave":
		default:
			args = args[1:]
			continue
		}
		if path.IsAbs(args[1]) && path.IsAbs(args[3]) {
			ds = append(ds, deed{from: args[3], to: args[1], priority: priority})
		}
		args = args[skip:]
	}
	return ds
}

// literal splits a command into words, and reports whether they mean what they
// say: no expansion of any kind.
func literal(command string) (words []string, ok bool) {
	if strings.ContainsAny(command, "$`*?[]{}()<>\\~#!\x00") {
		return nil, false
	}
	var word strings.Builder
	quote, within := rune(0), false
	for _, r := range strings.TrimSpace(command) {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, within = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if within {
				words, within = append(words, word.String()), false
				word.Reset()
			}
		default:
			word.WriteRune(r)
			within = true
		}
	}
	if within {
		words = append(words, word.String())
	}
	return words, quote == 0
}

// do does a deed where the tree has what it is about, and nothing where the
// package brought the result itself.
func (t *tree) do(d deed, origin string) error {
	from, err := clean(d.from)
	if err != nil {
		return nil // a name that leads nowhere in a guest either
	}
	to, err := clean(d.to)
	if err != nil || to == "." {
		return nil
	}
	source := t.find(from)
	if source == nil || source.mode.IsDir() {
		return nil
	}
	old := t.nodes[to]
	if old != nil && (old.priority == 0 || d.copies || old.priority >= d.priority) {
		return nil
	}
	n := *source
	n.origin = origin
	if d.copies {
		return t.add(to, &n)
	}
	n = node{
		mode: fs.ModeSymlink | 0o777, target: path.Clean(d.from),
		mtime: source.mtime, origin: origin, priority: max(1, d.priority),
	}
	return t.add(to, &n)
}
