package api

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/ports"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A follower applies what a watch sends.
type follower struct {
	known  map[ports.Key]ports.State
	fresh  map[ports.Key]ports.State // told since EVENT_TYPE_LOST, until EVENT_TYPE_SYNCED
	token  string
	at     uint64 // the revision up to which it knows everything
	synced bool
	seen   map[offloadv1.EventType]int
}

func newFollower() *follower {
	return &follower{known: map[ports.Key]ports.State{}, fresh: map[ports.Key]ports.State{}, seen: map[offloadv1.EventType]int{}}
}

func (f *follower) apply(t *testing.T, m *offloadv1.WatchPortsResponse) {
	t.Helper()
	f.seen[m.GetType()]++
	k := portKey(m.GetPort().GetSpec().GetKey())
	state := states[m.GetPort().GetStatus().GetState()]
	switch m.GetType() {
	case offloadv1.EventType_EVENT_TYPE_EXISTS:
		f.fresh[k] = state
	case offloadv1.EventType_EVENT_TYPE_SYNCED:
		f.known, f.fresh, f.synced = f.fresh, map[ports.Key]ports.State{}, true
	case offloadv1.EventType_EVENT_TYPE_CHANGED:
		f.known[k] = state
	case offloadv1.EventType_EVENT_TYPE_DELETED:
		delete(f.known, k)
	case offloadv1.EventType_EVENT_TYPE_LOST:
		f.synced = false
	case offloadv1.EventType_EVENT_TYPE_HEARTBEAT:
	case offloadv1.EventType_EVENT_TYPE_UNSPECIFIED:
		t.Fatalf("unspecified: %v", m)
	}
	if m.GetType() != offloadv1.EventType_EVENT_TYPE_EXISTS && m.GetType() != offloadv1.EventType_EVENT_TYPE_LOST {
		if m.GetResumeToken() == "" || !f.synced && len(f.known) > 0 {
			t.Fatalf("%v without token, or before everything was told", m)
		}
		told := m.GetType() == offloadv1.EventType_EVENT_TYPE_CHANGED || m.GetType() == offloadv1.EventType_EVENT_TYPE_DELETED
		if m.GetRevision() < f.at || told && m.GetRevision() == f.at {
			t.Fatalf("%v after revision %d", m, f.at)
		}
		f.token, f.at = m.GetResumeToken(), m.GetRevision()
	} else if m.GetResumeToken() != "" || m.GetRevision() != 0 {
		t.Fatalf("%v has a token", m)
	}
}

// expect receives until the follower knows want.
func (f *follower) expect(t *testing.T, stream grpc.ServerStreamingClient[offloadv1.WatchPortsResponse], want map[ports.Key]ports.State) {
	t.Helper()
	for !f.synced || !maps.Equal(f.known, want) {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("%v; known %v, want %v", err, f.known, want)
		}
		f.apply(t, m)
	}
}

// Whoever follows a watch, ended and resumed at any time, knows the ports that the filter selects.
func TestWatch(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		s := serve(t)
		c := offloadv1.NewPortServiceClient(s.dial(t))
		filter := &offloadv1.PortFilter{}
		if rnd.IntN(2) == 0 {
			filter.Network = "n0"
		}
		if rnd.IntN(2) == 0 {
			filter.States = []offloadv1.PortState{offloadv1.PortState_PORT_STATE_READY, offloadv1.PortState_PORT_STATE_FAILED}
		}
		parsed, err := parsePortFilter(filter)
		if err != nil {
			t.Fatal(err)
		}
		f := newFollower()
		for range 6 {
			ctx, cancel := context.WithCancel(soon(t))
			stream, err := c.WatchPorts(ctx, &offloadv1.WatchPortsRequest{Filter: filter, ResumeToken: f.token})
			if err != nil {
				t.Fatal(err)
			}
			for range rnd.IntN(4) {
				for range rnd.IntN(10) {
					p := plain("n"+strconv.Itoa(rnd.IntN(2)), strconv.Itoa(rnd.IntN(4)), ports.States()[rnd.IntN(5)])
					if rnd.IntN(3) == 0 {
						s.feed.Remove(p.Spec.Key)
					} else {
						s.feed.Put(p)
					}
				}
				want := map[ports.Key]ports.State{}
				all, _ := s.feed.All()
				for _, p := range all {
					if parsed.selects(p) {
						want[p.Spec.Key] = p.State
					}
				}
				f.expect(t, stream, want)
			}
			cancel()
		}
		if f.seen[offloadv1.EventType_EVENT_TYPE_LOST] > 0 || f.seen[offloadv1.EventType_EVENT_TYPE_SYNCED] > 1 {
			t.Errorf("seed %d: resumed, but began anew: %v", seed, f.seen)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// A reader that does not read learns that it lost something and then everything; the writer never waits for it.
func TestWatchSlowReader(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewPortServiceClient(s.dial(t, grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16)))
	stream, err := c.WatchPorts(soon(t), &offloadv1.WatchPortsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower()
	f.expect(t, stream, map[ports.Key]ports.State{})
	want := map[ports.Key]ports.State{}
	message := strings.Repeat("x", 2000)
	for i := range 100000 { // several times what the feed keeps, while the reader's window holds 32
		p := plain("n", strconv.Itoa(i%100), ports.Creating)
		if i >= 99900 {
			p.State = ports.Ready
		}
		p.Message = message
		s.feed.Put(p)
		want[p.Spec.Key] = p.State
	}
	f.expect(t, stream, want)
	if f.seen[offloadv1.EventType_EVENT_TYPE_LOST] == 0 || f.seen[offloadv1.EventType_EVENT_TYPE_SYNCED] < 2 {
		t.Errorf("events: %v", f.seen)
	}
}

// A token of before a restart is no reason to fail.
func TestWatchForeignToken(t *testing.T) {
	s := serve(t)
	s.feed.Put(plain("n", "1", ports.Ready))
	c := offloadv1.NewPortServiceClient(s.dial(t))
	for _, token := range []string{ports.NewFeed().Token(0), "nonsense", s.feed.Token(99)} {
		stream, err := c.WatchPorts(soon(t), &offloadv1.WatchPortsRequest{ResumeToken: token})
		if err != nil {
			t.Fatal(err)
		}
		var got []offloadv1.EventType
		for range 3 {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.GetType())
		}
		want := []offloadv1.EventType{offloadv1.EventType_EVENT_TYPE_LOST, offloadv1.EventType_EVENT_TYPE_EXISTS, offloadv1.EventType_EVENT_TYPE_SYNCED}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v", token, got)
		}
	}
}

func TestWatchHeartbeat(t *testing.T) {
	s := &portService{ports: &behind{feed: ports.NewFeed()}, heartbeat: 10 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	stream := &fakeStream{ctx: ctx}
	stream.send = func(m *offloadv1.WatchPortsResponse) {
		if m.GetType() == offloadv1.EventType_EVENT_TYPE_HEARTBEAT {
			if m.GetResumeToken() == "" {
				t.Error("a heartbeat without token")
			}
			cancel()
		}
	}
	if err := s.WatchPorts(&offloadv1.WatchPortsRequest{}, stream); err == nil || ctx.Err() == nil {
		t.Errorf("ended with %v", err)
	}
}

type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*offloadv1.WatchPortsResponse)
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Send(m *offloadv1.WatchPortsResponse) error {
	s.send(m)
	return nil
}
