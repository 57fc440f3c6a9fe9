package virtrpc

import (
	"errors"
	"fmt"
	"strings"

	lv "github.com/digitalocean/go-libvirt"

	"consort.dev/consort/fault"
)

// Error is what the daemon answered: its own numbers and its own words.
type Error struct {
	Code   int // virErrorNumber
	Domain int // virErrorDomain: the part of the daemon that failed
	Text   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (error %d of part %d)", e.Text, e.Code, e.Domain)
}

// The codes that mean something to us (include/libvirt/virterror.h). The same
// mistake has other codes in other drivers, so callers read again rather than
// look at them.
const (
	codeNoMemory   = 2
	codeNoSupport  = 3
	codeNoConnect  = 5
	codeInvalidArg = 8
	codeXML        = 27
	codeExists     = 28
	codeDenied     = 29
	codeXMLDetail  = 35
	codeRPC        = 39
	codeNoDomain   = 42
	codeAuth       = 45
	codeInvalid    = 55
	codeConfig     = 67
	codeTimeout    = 68
	codeArgument   = 74
	codeAborted    = 78
	codeNoMetadata = 80
	codeOperation  = 84
	codeAgent      = 86
	codeBusy       = 87
	codeAccess     = 88
	codeXMLSchema  = 92
	codeAgentSync  = 97
	codeNoDevice   = 99
)

// partRPC is the part that carries calls.
const partRPC = 7

var kinds = map[int]fault.Kind{
	codeNoMemory:   fault.NoCapacity,
	codeNoSupport:  fault.Unsupported,
	codeNoConnect:  fault.Unavailable,
	codeInvalidArg: fault.Invalid,
	codeXML:        fault.Invalid,
	codeExists:     fault.Exists,
	codeDenied:     fault.Denied,
	codeXMLDetail:  fault.Invalid,
	codeNoDomain:   fault.NotFound,
	codeAuth:       fault.Unauthenticated,
	codeInvalid:    fault.Conflict,
	codeConfig:     fault.Unsupported,
	codeTimeout:    fault.Busy, // another job holds the domain
	codeArgument:   fault.Unsupported,
	codeAborted:    fault.Conflict,
	codeNoMetadata: fault.NotFound,
	codeOperation:  fault.Unsupported,
	codeAgent:      fault.Unavailable,
	codeBusy:       fault.Busy,
	codeAccess:     fault.Denied,
	codeXMLSchema:  fault.Invalid,
	codeAgentSync:  fault.Unavailable,
	codeNoDevice:   fault.NotFound,
}

func (e *Error) kind() fault.Kind {
	switch {
	case strings.Contains(e.Text, "No space left"):
		return fault.NoCapacity
	case e.Code == codeRPC && e.Domain == partRPC:
		return fault.Unavailable
	}
	return kinds[e.Code] // Internal where it is not there
}

// refused returns what the daemon answered, or nil where it did not.
func refused(err error) *Error {
	var e lv.Error
	if errors.As(err, &e) {
		return &Error{Code: int(e.Code & 0xffff), Domain: int(e.Code >> 16), Text: e.Message}
	}
	if errors.Is(err, lv.ErrUnsupported) {
		return &Error{Code: codeNoSupport, Domain: partRPC, Text: err.Error()}
	}
	return nil
}
