package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (b *behind) States(bool) ([]monitor.State, <-chan struct{}) { return b.pairs, b.pairsChanged }

func (b *behind) Answers() (answered, refused uint64) { return 7, 8 }

// A caller hears of all pairs, and again when there is something new; the status has those that are worse.
func TestWatchPairs(t *testing.T) {
	s := serve(t)
	changed := make(chan struct{}, 1)
	s.pairsChanged = changed
	at := time.Unix(5, 0)
	s.pairs = []monitor.State{
		{
			Pair: monitor.Pair{From: "a", To: "b"}, Status: monitor.Status{Reason: reason.ProbeOffloadLost, Message: "why"}, Since: at, Measured: true, Chassis: "n2",
			Counts:  pinger.Counts{Sent: 10, Answered: 7, Lost: 2, Late: 1, Missed: 3, Held: 4},
			Latency: monitor.Latency{Count: 9, Lost: 2, P50: time.Microsecond, P90: monitor.Lost, Max: time.Second},
			Level:   monitor.Filters, Way: monitor.Way{Packets: 100, Hardware: 25, Software: 70, Tracked: monitor.Tracked{Zones: 4, Assured: 3, Offload: 2, Hardware: 1}},
			Why: "for that reason", Regressions: 1,
		},
		{Pair: monitor.Pair{From: "a", To: "c"}, Status: monitor.Status{Reason: reason.LPortNotFound}, Since: at},
		{Pair: monitor.Pair{From: "d", To: "a"}, Answers: true, Status: monitor.Status{Reason: reason.ProbeOffloadLost}, Since: at},
	}
	worse := &offloadv1.ProbePair{
		From: "a", To: "b", Reason: "PROBE_OFFLOAD_LOST", Message: "why", Since: timestamppb.New(at), Measured: true, Chassis: "n2",
		Sent: 10, Answered: 7, Lost: 2, Late: 1, Missed: 3, Held: 4, Recent: 9, RecentLost: 2, Max: durationpb.New(time.Second), Regressions: 1,
		Percentiles: []*offloadv1.ProbePercentile{{Percent: 50, Value: durationpb.New(time.Microsecond)}, {Percent: 90}},
		Level:       offloadv1.OffloadLevel_OFFLOAD_LEVEL_FILTERS, Filters: 0.95, Hardware: 0.25,
		Connection: &offloadv1.ProbeConnection{Zones: 4, Assured: 3, Offload: 2, HwOffload: 1}, Why: "for that reason",
	}
	answers := &offloadv1.ProbePair{From: "d", To: "a", Answers: true, Reason: "PROBE_OFFLOAD_LOST", Since: timestamppb.New(at)}
	want := &offloadv1.WatchPairsResponse{Answered: 7, Refused: 8, Pairs: []*offloadv1.ProbePair{
		worse, {From: "a", To: "c", Reason: "LPORT_NOT_FOUND", Since: timestamppb.New(at)}, answers,
	}}
	conn := s.dial(t)
	stream, err := offloadv1.NewMonitorServiceClient(conn).WatchPairs(soon(t), &offloadv1.WatchPairsRequest{})
	if err != nil {
		t.Fatal(client.Error(err))
	}
	for range 2 {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(client.Error(err))
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		changed <- struct{}{}
	}
	st, err := offloadv1.NewNodeServiceClient(conn).GetStatus(soon(t), &offloadv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(client.Error(err))
	}
	if d := cmp.Diff([]*offloadv1.ProbePair{worse, answers}, st.GetProbeWorse(), protocmp.Transform()); d != "" || st.GetProbePairs() != 1 {
		t.Errorf("%d pairs (-want +got)\n%s", st.GetProbePairs(), d)
	}
}
