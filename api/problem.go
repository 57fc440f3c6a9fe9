package api

import (
	"errors"
	"net/http"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Problem is an error as it travels: problem details of RFC 9457 with the kind
// of fault and the broken rules. It is an error whose kind is the fault's.
type Problem struct {
	Type     string           `json:"type" doc:"/problems/ and the kind."`
	Title    string           `json:"title" doc:"What class of problem it is."`
	Status   int              `json:"status" doc:"The HTTP status."`
	Detail   string           `json:"detail" doc:"What went wrong and what to do next."`
	Kind     string           `json:"kind" doc:"The kind, for programs."`
	Problems []estate.Problem `json:"problems,omitempty" doc:"The broken rules, each at its field."`
}

// NewProblem returns err as it travels. Text of an error that nobody
// classified stays here: it may name what callers must not see.
func NewProblem(err error) *Problem {
	kind := fault.KindOf(err)
	p := &Problem{
		Type:     "/problems/" + kind.String(),
		Title:    strings.ReplaceAll(kind.String(), "-", " "),
		Status:   kind.HTTPStatus(),
		Detail:   err.Error(),
		Kind:     kind.String(),
		Problems: Problems(err),
	}
	if kind == fault.Internal {
		p.Detail = "something of ours went wrong; the log says what, under the request's id"
	}
	var own *Problem
	if errors.As(err, &own) && len(own.Problems) > 0 && err == error(own) {
		p.Detail = own.Detail
	}
	return p
}

// Invalid returns an error for the broken rules.
func Invalid(detail string, problems []estate.Problem) error {
	return &Problem{Detail: detail, Kind: fault.Invalid.String(), Status: http.StatusUnprocessableEntity, Problems: problems}
}

// Error returns the detail, followed by the broken rules.
func (p *Problem) Error() string {
	if len(p.Problems) == 0 {
		return p.Detail
	}
	texts := make([]string, len(p.Problems))
	for i, q := range p.Problems {
		texts[i] = q.String()
	}
	return p.Detail + ": " + strings.Join(texts, "; ")
}

// Unwrap returns the kind of fault.
func (p *Problem) Unwrap() error { return fault.Named(p.Kind) }

// Problems returns the broken rules that an error carries.
func Problems(err error) []estate.Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p.Problems
	}
	return nil
}
