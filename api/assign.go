package api

import (
	"reflect"

	"consort.dev/consort/estate"
)

// assign makes *dst equal to *src; both are of one kind.
func assign(dst, src estate.Resource) {
	reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(src).Elem())
}
