package rpc

import (
	"encoding/json"
	"reflect"
	"testing"

	"consort.dev/consort/estate"
)

// TestMergePatchDoesWhatTheStandardSays runs the examples of RFC 7396, appendix A.
func TestMergePatchDoesWhatTheStandardSays(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		target, err1 := decodeAny([]byte(c[0]))
		patch, err2 := decodeAny([]byte(c[1]))
		want, err3 := decodeAny([]byte(c[2]))
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		if got := merge(target, patch); !reflect.DeepEqual(got, want) {
			t.Errorf("merge(%s, %s): got %v, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestEveryFieldOfEveryKindIsTakenBack(t *testing.T) {
	for _, k := range estate.Kinds() {
		r := k.NewNamed("p", "x")
		fill(reflect.ValueOf(r).Elem(), 4)
		r.Header().Kind = k.Kind
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if ps := strict(data, "", k.New()); len(ps) > 0 {
			t.Errorf("%s: what we write we do not read: %v", k.Kind, ps)
		}
	}
}

// fill sets every field that is not text of its own rules to something.
func fill(v reflect.Value, depth int) {
	if depth == 0 || isText(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth-1)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

func FuzzStrict(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"consort.dev/v1","kind":"Network","metadata":{"name":"x","project":"p","labels":{"a":"b"}},"spec":{"subnet":"10.1.0.0/24"}}`))
	f.Add([]byte(`{"kind":"Machine","spec":{"hardware":{"memory":"1Gi","disks":[{"name":"root"}]}},"status":{"guest":{"addresses":["::1"]}}}`))
	f.Add([]byte(`{"kind":"Image","spec":{"recipe":null}}`))
	f.Add([]byte(`{"kind":"Event","spec":{"at":"2026-01-01T00:00:00Z","on":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, ps := readObject(data, "o")
		if len(ps) > 0 {
			return
		}
		estate.Check(r) // whatever it says, it comes back
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", data, err)
		}
		if _, ps := readObject(again, "o"); len(ps) > 0 {
			t.Fatalf("%s became %s, which is refused: %v", data, again, ps)
		}
	})
}
