// Package manifest reads objects from strict YAML and writes them back: what it
// refuses, it refuses with file, line, column and the nearest known name.
package manifest

import (
	"cmp"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Limits keep a foreign manifest from eating the machine that reads it.
const (
	maxFile   = 4 << 20 // bytes of one file
	maxFiles  = 1000
	maxNodes  = 50_000 // of one file, aliases counted each time they are used
	maxDepth  = 64
	maxErrors = 1000 // told at once
)

// Set is objects that are applied together, or not at all.
type Set struct {
	Objects []Item
}

// Item is an object and where it was written.
type Item struct {
	Resource estate.Resource
	File     string
	Line     int
	doc      *document
}

// Resources returns the objects alone, in the set's order.
func (s Set) Resources() []estate.Resource {
	out := make([]estate.Resource, len(s.Objects))
	for i, it := range s.Objects {
		out[i] = it.Resource
	}
	return out
}

// Loader reads sets. The zero Loader accepts only sets that stand on their own.
type Loader struct {
	// Stdin is read for the path "-".
	Stdin io.Reader
	// Project is filled in where an object that needs one names none.
	Project string
	// Known returns the names of the objects of a kind that exist already, so
	// that a set may refer to them. Nil is none.
	Known func(kind estate.Kind, project string) ([]string, error)
}

// Load reads a set that stands on its own: see Loader.Load.
func Load(paths ...string) (Set, error) { return new(Loader).Load(paths...) }

// Load reads the manifests at the paths: files, folders (every .yaml, .yml and
// .json in them and below) and "-". Everything that is wrong is returned at once
// as Errors, sorted by place, of kind fault.Invalid; then the Set is empty. A
// path that cannot be read is fault.NotFound. An SLO of OpenSLO v1 becomes a
// ServiceLevel for each of its objectives. Objects come in an order in which
// they can be applied one by one.
func (l *Loader) Load(paths ...string) (Set, error) {
	r, err := l.readAll(paths)
	if err != nil {
		return Set{}, err
	}
	r.levels()
	if err := r.links(l.Known); err != nil {
		return Set{}, err
	}
	if len(r.errs) > 0 {
		return Set{}, fault.Invalid.Errorf("%w", r.errs.sorted())
	}
	if len(r.docs) == 0 {
		return Set{}, fault.Invalid.Errorf("%s: no objects in it; begin one with apiVersion: %s", strings.Join(paths, " "), estate.APIVersion)
	}
	slices.SortStableFunc(r.docs, func(a, b *document) int { return cmp.Compare(rank(a.object), rank(b.object)) })
	var s Set
	for _, d := range r.docs {
		s.Objects = append(s.Objects, Item{d.object, d.at.file, d.at.line, d})
	}
	return s, nil
}

// readAll reads every document at the paths.
func (l *Loader) readAll(paths []string) (*reading, error) {
	files, err := expand(paths)
	if err != nil {
		return nil, err
	}
	r := &reading{project: l.Project, seen: map[estate.Ref]place{}, openSeen: map[string]place{}}
	for _, file := range files {
		text, err := l.read(file)
		if err != nil {
			return nil, err
		}
		if file == "-" {
			file = "stdin"
		}
		r.file(file, text)
	}
	return r, nil
}

// rank is the kind's place in the order of applying.
func rank(r estate.Resource) int {
	return slices.IndexFunc(estate.Kinds(), func(k estate.KindInfo) bool { return k.Kind == r.Header().Kind })
}

func (l *Loader) read(file string) ([]byte, error) {
	in, name := l.Stdin, "stdin"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.NotFound.Errorf("read manifest: %w", err)
		}
		defer f.Close()
		in, name = f, file
	}
	if in == nil {
		in = strings.NewReader("")
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fault.Unavailable.Errorf("read manifest %s: %w", name, err)
	}
	if len(text) > maxFile {
		return nil, fault.Invalid.Errorf("%s: larger than 4 MiB; split it into several files", name)
	}
	return text, nil
}

// expand turns folders into the manifests in them.
func expand(paths []string) ([]string, error) {
	if len(paths) == 0 {
		return nil, fault.Invalid.Errorf("no manifest is named; give a file, a folder or -")
	}
	var files []string
	for _, p := range paths {
		if p == "-" {
			files = append(files, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, fault.NotFound.Errorf("%s: no such file or folder", p)
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		found, err := folder(p)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) > maxFiles {
		return nil, fault.Invalid.Errorf("%d manifests at once; at most %d", len(files), maxFiles)
	}
	return files, nil
}

func folder(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(e.Name(), ".") && p != dir
		if e.IsDir() {
			if hidden {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(p)
		if !hidden && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
			found = append(found, p)
		}
		return nil
	})
	if err != nil {
		return nil, fault.Unavailable.Errorf("read folder %s: %w", dir, err)
	}
	if len(found) == 0 {
		return nil, fault.NotFound.Errorf("%s: no manifests in this folder; they end in .yaml, .yml or .json", dir)
	}
	return found, nil
}

// Error returns the text as an error at the field of the object, or where the
// field would be.
func (it Item) Error(path, text string) Error {
	at := it.doc.placeOf(path)
	return Error{at.file, at.line, at.column, path, text}
}
