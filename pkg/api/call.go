package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/offloadd/offloadd/pkg/reason"
)

// answerMargin is what of a caller's time is kept for undoing and answering: otherwise the caller would give up at the very moment
// at which it could be told why. At most an eighth of the time it gave.
const answerMargin = time.Second

// A call is one that is being served, and what the log says of it.
type call struct {
	method string
	attrs  []slog.Attr
}

type callKey struct{}

// annotate adds a fact to the log line of the call of ctx.
func annotate(ctx context.Context, attrs ...slog.Attr) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.attrs = append(c.attrs, attrs...)
	}
}

// serve serves a call: may the caller, and as it asks? Panics become errors, errors become what goes over the wire, and
// each call leaves a line in the log.
func (s *Server) serve(ctx context.Context, method string, do func(context.Context) error) (err error) {
	c := &call{method: method}
	started := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = reason.Errorf(reason.Internal, "api %s: panic: %v", method, p)
			annotate(ctx, slog.String("stack", string(debug.Stack())))
		}
		err = statusOf(err)
		if s.stopping.Err() != nil && status.Code(err) == codes.Canceled {
			err = statusOf(reason.Errorf(reason.ShuttingDown, "api %s: the daemon is being stopped", method))
		}
		s.logCall(ctx, c, err, time.Since(started))
	}()
	ctx = context.WithValue(ctx, callKey{}, c)
	need, ok := methods[method]
	if !ok {
		return reason.Errorf(reason.VersionSkew, "api %s: no such method here", method)
	}
	if need == writes {
		who, ok := callerOf(ctx)
		if !ok || who.uid != 0 {
			return reason.Errorf(reason.PermissionDenied, "api %s: only root may, not uid %d", method, who.uid)
		}
		deadline, ok := ctx.Deadline()
		if !ok {
			return reason.Errorf(reason.DeadlineRequired, "api %s: no deadline", method)
		}
		left := time.Until(deadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(answerMargin, left/8)))
		defer cancel()
	}
	return do(ctx)
}

// logCall writes what a call was: those that write are the audit log, those that read would drown it.
func (s *Server) logCall(ctx context.Context, c *call, err error, took time.Duration) {
	level := slog.LevelDebug
	if methods[c.method] == writes {
		level = slog.LevelInfo
	}
	code := status.Code(err)
	if code == codes.Internal {
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("method", c.method)}
	if who, ok := callerOf(ctx); ok {
		attrs = append(attrs, slog.Uint64("uid", uint64(who.uid)), slog.Int("pid", int(who.pid)))
	}
	if trace, span, ok := traceContext(ctx); ok {
		attrs = append(attrs, slog.String("trace_id", trace), slog.String("span_id", span))
	}
	attrs = append(attrs, slog.String("code", code.String()), slog.Duration("took", took))
	attrs = append(attrs, c.attrs...)
	if err != nil {
		if info := errorInfo(err); info != nil {
			attrs = append(attrs, slog.String("reason", info.GetReason()))
		}
		attrs = append(attrs, slog.String("err", status.Convert(err).Message()))
	}
	s.log.LogAttrs(context.WithoutCancel(ctx), level, "call", attrs...)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	err = s.serve(ctx, info.FullMethod, func(ctx context.Context) (err error) {
		resp, err = next(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// stream ends streams when the server stops.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.serve(ss.Context(), info.FullMethod, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.stopping, cancel)()
		return next(srv, streamOf{ss, ctx})
	})
}

// A streamOf is a stream with another context.
type streamOf struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamOf) Context() context.Context { return s.ctx }

// unknown answers calls of what the server does not have; serve has refused them before.
func unknown(any, grpc.ServerStream) error {
	return errors.New("api: a call of an unknown method has passed")
}

// traceContext returns the identifiers of trace and span in the caller's traceparent, see W3C Trace Context, section 3.2.
func traceContext(ctx context.Context) (trace, span string, ok bool) {
	values := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if len(values) != 1 {
		return "", "", false
	}
	parts := strings.Split(values[0], "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || len(parts[3]) != 2 {
		return "", "", false
	}
	trace, span = parts[1], parts[2]
	if !isID(trace, 32) || !isID(span, 16) {
		return "", "", false
	}
	return trace, span, true
}

// isID reports whether s has n digits, hexadecimal in lower case, and not all are 0.
func isID(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" && strings.Trim(s, "0") != ""
}

// required returns an error with reason InvalidField for a field that is missing.
func required(path string) error {
	return invalid(reason.Field{Path: path, Cause: "is required"})
}

// invalid returns an error with reason InvalidField.
func invalid(fields ...reason.Field) error {
	causes := make([]string, len(fields))
	for i, f := range fields {
		causes[i] = f.Path + " " + f.Cause
	}
	return &reason.Error{
		Reason: reason.InvalidField,
		Err:    fmt.Errorf("api request: %s", strings.Join(causes, "; ")),
		Fields: fields,
	}
}
