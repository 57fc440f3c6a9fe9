package manifest

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"consort.dev/consort/estate"
	"consort.dev/consort/manifest/openslo"
)

// reading is one call of Load.
type reading struct {
	project  string
	errs     Errors
	docs     []*document
	open     []*document          // those of OpenSLO
	seen     map[estate.Ref]place // every object named so far, broken ones too
	openSeen map[string]place     // and every document of OpenSLO
}

// document is one object of a file.
type document struct {
	r       *reading
	at      place
	object  estate.Resource
	open    openslo.Object   // instead of object, where the document is one of OpenSLO
	shape   reflect.Type     // of the one that is there
	called  string           // its kind
	places  map[string]place // of values, by field path
	tainted map[string]bool  // paths that something is said about already
	nodes   *int             // budget left for the file
}

func (r *reading) fail(at place, path, text string) {
	if len(r.errs) >= maxErrors {
		return
	}
	r.errs = append(r.errs, Error{at.file, at.line, at.column, path, text})
}

// file reads the documents of one file.
func (r *reading) file(name string, text []byte) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !r.clean(name, text) {
		return
	}
	budget := maxNodes
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			r.syntax(name, text, err)
			return
		}
		if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
			continue
		}
		root := n.Content[0]
		if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
			continue // an empty document, as after a last ---
		}
		d := &document{r: r, at: place{name, root.Line, root.Column}, nodes: &budget,
			places: map[string]place{}, tainted: map[string]bool{}}
		d.read(root)
	}
}

// clean refuses what no YAML may hold, with its place, which the parser does
// not tell.
func (r *reading) clean(name string, text []byte) bool {
	line, begin := 1, 0
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		at := place{name, line, utf8.RuneCount(text[begin:i]) + 1}
		switch {
		case c == utf8.RuneError && size == 1:
			r.fail(at, "", "this is not UTF-8 text; save the file as UTF-8")
			return false
		case c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f:
			r.fail(at, "", "a control character; remove it or write it as an escape in double quotes")
			return false
		case c == '\n':
			line, begin = line+1, i+1
		}
		i += size
	}
	return true
}

var (
	yamlLine    = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	yamlUnknown = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntax reports what the parser refused, in words that say what to do.
func (r *reading) syntax(name string, text []byte, err error) {
	m := yamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
	line, what := 1, err.Error()
	if m != nil {
		what = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			line = n
		}
	}
	lines := strings.Split(string(text), "\n")
	line = min(line, len(lines))
	column := len(lines[line-1]) - len(strings.TrimLeft(lines[line-1], " ")) + 1
	if a := yamlUnknown.FindStringSubmatch(what); a != nil {
		for i, l := range lines {
			if j := strings.Index(l, "*"+a[1]); j >= 0 {
				line, column = i+1, j+1
				break
			}
		}
		r.fail(place{name, line, column}, "", "*"+a[1]+" stands for nothing: no &"+a[1]+" comes before it; write the value out")
		return
	}
	here := strings.TrimLeft(lines[line-1], " ")
	switch {
	case strings.HasPrefix(here, "\t"):
		what = "a tab indents this line; YAML is indented with spaces"
	case strings.Contains(what, "mapping values are not allowed"):
		what = "a field cannot begin here; indent it like the fields around it, or put text with a colon in quotes"
	case strings.Contains(what, "did not find expected ',' or ']'"):
		line, column = opening(lines, line, "[", column)
		what = "the list that begins here with [ does not end; close it with ]"
	case strings.Contains(what, "did not find expected ',' or '}'"):
		line, column = opening(lines, line, "{", column)
		what = "the fields that begin here with { do not end; close them with }"
	case strings.Contains(what, "found unexpected end of stream"):
		what = "text in quotes does not end before the file does; close the quotes"
	case strings.Contains(what, "did not find expected '-' indicator"):
		what = "the list that begins here is broken further down; begin each of its items with - at the same indent"
	case strings.Contains(what, "did not find expected key"):
		what = "a field was expected; indent it like the fields around it and write name: value"
	case strings.Contains(what, "could not find expected ':'"):
		what = "a colon is missing; write name: value"
	case strings.Contains(what, "excessive aliasing"), strings.Contains(what, "exceeded max depth"):
		what = "nested too deeply"
	default:
		what = "this is not YAML: " + what
	}
	r.fail(place{name, line, column}, "", what)
}

// opening finds the bracket the parser speaks of: it counts lines from 0 here.
func opening(lines []string, line int, bracket string, column int) (int, int) {
	for i := line; i <= min(line+1, len(lines)); i++ {
		if j := strings.LastIndex(lines[i-1], bracket); j >= 0 {
			return i, j + 1
		}
	}
	return line, column
}
