package api

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/offloadd/offloadd/pkg/reason"
)

// retryDelay is how long callers are asked to wait before they repeat a call that may succeed then.
const retryDelay = time.Second

// statusOf makes of an error what goes over the wire: the code of its reason, an ErrorInfo with reason and metadata, the fields
// that are wrong as BadRequest, and RetryInfo if the same call may succeed later.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err // of gRPC's own services, or done already
	}
	entry, ok := reason.Find(reason.Of(err))
	if !ok {
		entry, _ = reason.Find(reason.Internal)
	}
	info := &errdetails.ErrorInfo{Reason: string(entry.Reason), Domain: reason.Domain}
	details := []protoadapt.MessageV1{info}
	if e, ok := errors.AsType[*reason.Error](err); ok {
		info.Metadata = e.Metadata
		if len(e.Fields) > 0 {
			bad := &errdetails.BadRequest{}
			for _, f := range e.Fields {
				bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Path, Description: f.Cause})
			}
			details = append(details, bad)
		}
	}
	if entry.Retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	s := status.New(codes.Code(entry.Code), err.Error())
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return s.Err()
}

// errorInfo returns the ErrorInfo in an error that statusOf made; nil if there is none.
func errorInfo(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}
