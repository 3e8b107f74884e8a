package reason

import (
	"context"
	"errors"
	"fmt"
)

// An Error is an error with a reason.
type Error struct {
	Reason Reason

	// Err is what happened, with its circumstances. Not nil.
	Err error

	// Metadata are facts for programs, or nil. Keys are in lower case with underscores, at most 64 bytes.
	Metadata map[string]string

	// Fields are the fields of the request that InvalidField is about.
	Fields []Field
}

// A Field is a field of a request that cannot be as it is.
type Field struct {
	Path  string // as in the .proto file, for example "spec.routes[2].gateway"
	Cause string // for example `"10.0.0": not an IP address`
}

// Errorf returns an Error whose Err is that of fmt.Errorf; so %w wraps.
func Errorf(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Err: fmt.Errorf(format, args...)}
}

// With adds a fact to the metadata and returns e.
func (e *Error) With(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	e.Metadata[key] = value
	return e
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the reason of err: that of the outermost Error in it, Cancelled and DeadlineExceeded for the errors of
// contexts, Internal for all others, and "" for nil.
func Of(err error) Reason {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Cancelled
	default:
		return Internal
	}
}
