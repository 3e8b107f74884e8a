package main

import (
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/reason"
)

// The exit codes. They are stable.
const (
	exitOK           = 0
	exitNegative     = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitUnavailable  = 4
	exitPrecondition = 5
)

// A usageError is what is wrong with the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// A notFound is a name that nothing has.
type notFound struct{ err error }

func (e notFound) Error() string { return e.err.Error() }

// errNegative ends a command whose answer, printed already, is no.
var errNegative = errors.New("the answer is no")

// errUnknown ends a command whose answer, printed already, is that it is not known.
var errUnknown = errors.New("the answer is not known")

// exitCode returns the code for the error of a command. What is neither of ours nor the daemon's comes from reading the command
// line.
func exitCode(err error) int {
	var r *reason.Error
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNegative):
		return exitNegative
	case errors.Is(err, errUnknown):
		return exitPrecondition
	case errors.As(err, new(notFound)):
		return exitNotFound
	case errors.As(err, &r):
		return exitOfReason(r.Reason)
	default:
		return exitUsage
	}
}

func exitOfReason(r reason.Reason) int {
	entry, ok := reason.Find(r)
	if !ok {
		return exitPrecondition // of a newer daemon
	}
	switch entry.Code {
	case reason.CodeInvalidArgument:
		return exitUsage
	case reason.CodeNotFound:
		return exitNotFound
	case reason.CodeUnavailable, reason.CodeDeadlineExceeded, reason.CodeCancelled, reason.CodeInternal, reason.CodeDataLoss:
		return exitUnavailable
	case reason.CodeAlreadyExists, reason.CodePermissionDenied, reason.CodeResourceExhausted,
		reason.CodeFailedPrecondition, reason.CodeAborted, reason.CodeUnimplemented:
		return exitPrecondition
	default:
		return exitPrecondition
	}
}

// explainError prints an error with its reason, and what to do about it.
func (c *cli) explainError(err error) {
	if errors.Is(err, errNegative) || errors.Is(err, errUnknown) {
		return
	}
	fmt.Fprintf(c.stderr, "offloadctl: %v\n", err)
	var r *reason.Error
	if !errors.As(err, &r) {
		return
	}
	for _, f := range r.Fields {
		fmt.Fprintf(c.stderr, "  %s: %s\n", f.Path, f.Cause)
	}
	for _, key := range sortedKeys(r.Metadata) {
		fmt.Fprintf(c.stderr, "  %s: %s\n", key, r.Metadata[key])
	}
	fmt.Fprintf(c.stderr, "reason: %s\n", r.Reason)
	if entry, ok := reason.Find(r.Reason); ok {
		fmt.Fprintf(c.stderr, "meaning: %s\nremedy: %s\n", entry.Meaning, entry.Remedy)
	}
}
