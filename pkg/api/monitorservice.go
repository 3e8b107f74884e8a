package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/pkg/probe/monitor"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// pairsEvery is how often a caller of WatchPairs hears of changes at most.
const pairsEvery = time.Second

type monitorService struct {
	offloadv1.UnimplementedMonitorServiceServer
	monitor   Monitor
	heartbeat time.Duration
}

func (s *monitorService) WatchPairs(_ *offloadv1.WatchPairsRequest, stream offloadv1.MonitorService_WatchPairsServer) error {
	ctx := stream.Context()
	for {
		pairs, changed := s.monitor.States(false)
		r := &offloadv1.WatchPairsResponse{}
		r.Answered, r.Refused = s.monitor.Answers()
		for _, p := range pairs {
			r.Pairs = append(r.Pairs, pairMessage(p))
		}
		if err := stream.Send(r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pairsEvery):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(s.heartbeat):
		}
	}
}

// pairsStatus is what the status says of pairs.
func pairsStatus(pairs []monitor.State) (measured uint64, worse []*offloadv1.ProbePair) {
	for _, p := range pairs {
		if p.Measured {
			measured++
		}
		if p.Worse() {
			worse = append(worse, pairMessage(p))
		}
	}
	return measured, worse
}

func pairMessage(p monitor.State) *offloadv1.ProbePair {
	m := &offloadv1.ProbePair{
		From: p.From, To: p.To, Chassis: p.Chassis, Measured: p.Measured, Reason: string(p.Reason), Message: p.Message, Since: timestamppb.New(p.Since),
		Sent: p.Counts.Sent, Answered: p.Counts.Answered, Lost: p.Counts.Lost, Late: p.Counts.Late, Missed: p.Counts.Missed, Held: p.Counts.Held,
		Recent: uint64(p.Latency.Count), RecentLost: uint64(p.Latency.Lost), Regressions: p.Regressions, Level: number(offloadLevels, p.Level),
		Answers: p.Answers, Why: p.Why,
	}
	if t := p.Way.Tracked; t.Zones > 0 {
		m.Connection = &offloadv1.ProbeConnection{Zones: uint32(t.Zones), Assured: uint32(t.Assured), Offload: uint32(t.Offload), HwOffload: uint32(t.Hardware)}
	}
	m.Filters, m.Hardware = p.Way.Offloaded()
	if p.Latency.Max > 0 {
		m.Max = durationpb.New(p.Latency.Max)
	}
	for _, q := range []struct {
		percent float64
		value   time.Duration
	}{{50, p.Latency.P50}, {90, p.Latency.P90}, {99, p.Latency.P99}} {
		if q.value == 0 {
			continue // too few
		}
		r := &offloadv1.ProbePercentile{Percent: q.percent}
		if q.value != monitor.Lost {
			r.Value = durationpb.New(q.value)
		}
		m.Percentiles = append(m.Percentiles, r)
	}
	return m
}
