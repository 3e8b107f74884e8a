// Package client connects programs to the daemon's API, and turns what comes over the wire back into errors with reasons.
package client

import (
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/offloadd/offloadd/pkg/reason"
)

// DefaultSocket is where the daemon listens by default.
const DefaultSocket = "/run/offloadd/offloadd.sock"

// Dial returns a connection to the daemon at a unix socket. It does not wait for it: calls fail with DaemonUnreachable while
// nobody answers there, and succeed when somebody does. The kernel tells the daemon who calls.
func Dial(socket string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy()}, opts...)
	conn, err := grpc.NewClient("unix:"+socket, opts...)
	if err != nil {
		return nil, fmt.Errorf("api client %s: %w", socket, err)
	}
	return conn, nil
}

// Error returns an error of a call as a *reason.Error, which wraps it; nil for nil. What does not come from the daemon gets the reason
// that its code suggests: DaemonUnreachable, VersionSkew, DeadlineExceeded, Cancelled, or else Internal.
func Error(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		if errors.As(err, new(*reason.Error)) {
			return err
		}
		return &reason.Error{Reason: reason.Of(err), Err: err}
	}
	e := &reason.Error{Reason: byCode(s.Code()), Err: wireError{s.Message(), err}}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == reason.Domain {
				e.Reason, e.Metadata = reason.Reason(d.GetReason()), d.GetMetadata()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, reason.Field{Path: v.GetField(), Cause: v.GetDescription()})
			}
		}
	}
	return e
}

// A wireError is a status without its prefix of "rpc error: code =".
type wireError struct {
	message string
	err     error
}

func (e wireError) Error() string { return e.message }
func (e wireError) Unwrap() error { return e.err }

func byCode(c codes.Code) reason.Reason {
	switch c { //nolint:exhaustive // those that gRPC itself sends
	case codes.Unavailable:
		return reason.DaemonUnreachable
	case codes.Unimplemented:
		return reason.VersionSkew
	case codes.DeadlineExceeded:
		return reason.DeadlineExceeded
	case codes.Canceled:
		return reason.Cancelled
	default:
		return reason.Internal
	}
}
