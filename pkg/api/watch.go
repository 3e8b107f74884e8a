package api

import (
	"context"
	"errors"

	"github.com/offloadd/offloadd/pkg/ports"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (s *portService) WatchPorts(req *offloadv1.WatchPortsRequest, stream offloadv1.PortService_WatchPortsServer) error {
	filter, err := parsePortFilter(req.GetFilter())
	if err != nil {
		return err
	}
	w := &watch{feed: s.ports.Feed(), filter: filter, send: stream.Send}
	ctx := stream.Context()
	if err := s.ports.Known(ctx); err != nil {
		return err
	}
	if err := w.begin(req.GetResumeToken()); err != nil {
		return err
	}
	for {
		wait, cancel := context.WithTimeout(ctx, s.heartbeat)
		events, lost, err := w.feed.Next(wait, w.revision)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			err = w.mark(offloadv1.EventType_EVENT_TYPE_HEARTBEAT)
		case err != nil:
		case lost > 0:
			err = w.restart(lost)
		default:
			err = w.changes(events)
		}
		if err != nil {
			return err
		}
	}
}

// A watch is what a reader of the feed has been told.
type watch struct {
	feed     *ports.Feed
	filter   portFilter
	send     func(*offloadv1.WatchPortsResponse) error
	revision uint64 // up to which the reader knows everything

	// known are the ports the reader has been told of; with resumed it may know others, from before.
	known   map[ports.Key]struct{}
	resumed bool
}

// begin tells everything, or resumes after a token of ours.
func (w *watch) begin(token string) error {
	if token == "" {
		return w.everything()
	}
	revision, err := w.feed.Revision(token)
	if err != nil {
		return w.restart(0) // what happened since is not known
	}
	w.revision, w.resumed, w.known = revision, true, map[ports.Key]struct{}{}
	return nil
}

func (w *watch) restart(lost uint64) error {
	if err := w.send(&offloadv1.WatchPortsResponse{Type: offloadv1.EventType_EVENT_TYPE_LOST, Lost: lost}); err != nil {
		return err
	}
	return w.everything()
}

func (w *watch) everything() error {
	all, revision := w.feed.All()
	w.known, w.resumed = map[ports.Key]struct{}{}, false
	for _, p := range all {
		if !w.filter.selects(p) {
			continue
		}
		w.known[p.Spec.Key] = struct{}{}
		if err := w.send(&offloadv1.WatchPortsResponse{Type: offloadv1.EventType_EVENT_TYPE_EXISTS, Port: portMessage(p)}); err != nil {
			return err
		}
	}
	w.revision = revision
	return w.mark(offloadv1.EventType_EVENT_TYPE_SYNCED)
}

// mark tells how far the reader is.
func (w *watch) mark(t offloadv1.EventType) error {
	return w.send(&offloadv1.WatchPortsResponse{Type: t, Revision: w.revision, ResumeToken: w.feed.Token(w.revision)})
}

func (w *watch) changes(events []ports.Event) error {
	for _, e := range events {
		w.revision = e.Revision
		t, ok := w.event(e)
		if !ok {
			continue
		}
		err := w.send(&offloadv1.WatchPortsResponse{
			Type: t, Port: portMessage(e.Port), Revision: e.Revision, ResumeToken: w.feed.Token(e.Revision),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// event returns what a change is for the reader; false if it does not concern it.
func (w *watch) event(e ports.Event) (offloadv1.EventType, bool) {
	k := e.Port.Spec.Key
	if !e.Deleted && w.filter.selects(e.Port) {
		w.known[k] = struct{}{}
		return offloadv1.EventType_EVENT_TYPE_CHANGED, true
	}
	_, known := w.known[k]
	delete(w.known, k)
	return offloadv1.EventType_EVENT_TYPE_DELETED, known || w.resumed && w.filter.mayKnow(k)
}
