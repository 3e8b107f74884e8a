package api

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	// maxChunk is how much of a document goes into a message; a client takes four times as much by default.
	maxChunk = 1 << 20
	// progressEvery is how often the caller of Run hears of it at most.
	progressEvery = 100 * time.Millisecond
)

type probeService struct {
	offloadv1.UnimplementedProbeServiceServer
	probe Probe
}

func (s *probeService) ListPathKinds(context.Context, *offloadv1.ListPathKindsRequest) (*offloadv1.ListPathKindsResponse, error) {
	r := &offloadv1.ListPathKindsResponse{}
	for _, k := range path.Kinds() {
		r.Kinds = append(r.Kinds, &offloadv1.PathKind{
			Name: k.Name, Passes: k.Passes, StandsFor: k.Stands, Needs: k.Needs, Nodes: uint32(k.Nodes), Options: k.Options,
		})
	}
	return r, nil
}

func (s *probeService) Run(req *offloadv1.RunRequest, stream offloadv1.ProbeService_RunServer) error {
	ctx := stream.Context()
	spec, err := parseProbeSpec(req.GetSpec())
	if err != nil {
		return err
	}
	return tellRun(ctx, func(ctx context.Context, tell func(probe.Progress)) ([]byte, error) {
		return s.probe.Run(ctx, spec, tell)
	},
		func(p *offloadv1.ProbeProgress) error {
			return stream.Send(&offloadv1.RunResponse{Event: &offloadv1.RunResponse_Progress{Progress: p}})
		},
		func(part []byte) error {
			return stream.Send(&offloadv1.RunResponse{Event: &offloadv1.RunResponse_Run{Run: part}})
		})
}

func (s *probeService) RunPorts(req *offloadv1.RunPortsRequest, stream offloadv1.ProbeService_RunPortsServer) error {
	spec, err := parsePortProbeSpec(req.GetSpec())
	if err != nil {
		return err
	}
	return tellRun(stream.Context(), func(ctx context.Context, tell func(probe.Progress)) ([]byte, error) {
		return s.probe.RunPorts(ctx, spec, tell)
	},
		func(p *offloadv1.ProbeProgress) error {
			return stream.Send(&offloadv1.RunPortsResponse{Event: &offloadv1.RunPortsResponse_Progress{Progress: p}})
		},
		func(part []byte) error {
			return stream.Send(&offloadv1.RunPortsResponse{Event: &offloadv1.RunPortsResponse_Run{Run: part}})
		})
}

func (s *probeService) RunStarts(req *offloadv1.RunStartsRequest, stream offloadv1.ProbeService_RunStartsServer) error {
	spec, err := parseStartProbeSpec(req.GetSpec())
	if err != nil {
		return err
	}
	return tellRun(stream.Context(), func(ctx context.Context, tell func(probe.Progress)) ([]byte, error) {
		return s.probe.RunStarts(ctx, spec, tell)
	},
		func(p *offloadv1.ProbeProgress) error {
			return stream.Send(&offloadv1.RunStartsResponse{Event: &offloadv1.RunStartsResponse_Progress{Progress: p}})
		},
		func(part []byte) error {
			return stream.Send(&offloadv1.RunStartsResponse{Event: &offloadv1.RunStartsResponse_Run{Run: part}})
		})
}

// tellRun makes a run, and tells of it meanwhile.
func tellRun(ctx context.Context, run func(context.Context, func(probe.Progress)) ([]byte, error), progress func(*offloadv1.ProbeProgress) error, send func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last time.Time
	text, err := run(ctx, func(p probe.Progress) {
		if time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		if err := progress(&offloadv1.ProbeProgress{Fraction: p.Fraction, Doing: p.Doing, Session: uint32(p.Session), Sessions: uint32(p.Sessions)}); err != nil {
			cancel(err) // nobody listens any more
		}
	})
	if err != nil {
		return err
	}
	annotate(ctx, slog.Int("octets", len(text)))
	return chunks(text, send)
}

func chunks(text []byte, send func([]byte) error) error {
	for part := range slices.Chunk(text, maxChunk) {
		if err := send(part); err != nil {
			return err
		}
	}
	return nil
}

func (s *probeService) ListRuns(context.Context, *offloadv1.ListRunsRequest) (*offloadv1.ListRunsResponse, error) {
	all, err := s.probe.Runs()
	if err != nil {
		return nil, err
	}
	r := &offloadv1.ListRunsResponse{}
	for _, s := range all {
		m := &offloadv1.ProbeRun{
			Id: s.ID, Program: s.Program, Kernel: s.Kernel, Baseline: s.Baseline, Paths: s.Paths, Sessions: uint32(s.Sessions), Size: uint64(s.Octets),
		}
		if !s.Started.IsZero() {
			m.StartTime, m.EndTime = timestamppb.New(s.Started), timestamppb.New(s.Ended)
		}
		for _, l := range s.Loads {
			m.Loads = append(m.Loads, l.String())
		}
		r.Runs = append(r.Runs, m)
	}
	return r, nil
}

func (s *probeService) GetRun(req *offloadv1.GetRunRequest, stream offloadv1.ProbeService_GetRunServer) error {
	var p parser
	id := p.bound("id", req.GetId(), maxNameBytes)
	if err := p.err(); err != nil {
		return err
	}
	text, err := s.probe.Text(id)
	if err != nil {
		return err
	}
	return chunks(text, func(part []byte) error { return stream.Send(&offloadv1.GetRunResponse{Run: part}) })
}

func (s *probeService) Clean(ctx context.Context, _ *offloadv1.CleanRequest) (*offloadv1.CleanResponse, error) {
	removed, err := s.probe.Clean(ctx)
	if err != nil {
		return nil, err
	}
	return &offloadv1.CleanResponse{Removed: removed}, nil
}

// maxProbeTexts bounds how many paths or loads are looked at.
const maxProbeTexts = 1024

// parseProbeSpec returns a valid Spec, or an error with reason InvalidField.
func parseProbeSpec(m *offloadv1.ProbeSpec) (probe.Spec, error) {
	var p parser
	valid, err := p.probeSpec("spec", m).Validate()
	p.below("spec", err)
	return valid, p.err()
}

// parsePortProbeSpec is parseProbeSpec for a run between ports.
func parsePortProbeSpec(m *offloadv1.PortProbeSpec) (probe.PortSpec, error) {
	var p parser
	n := m.GetSpec()
	if len(n.GetPaths()) > 0 || n.GetBaseline() != "" || n.GetWire() != nil || n.GetStudy() != "" || n.GetSegments() || n.GetFresh() {
		p.refuse("spec.spec", "has paths, baseline, wire, study, segments or fresh, which are not those of ports")
	}
	s := probe.PortSpec{
		Client: m.GetClient(), Server: m.GetServer(), Family: p.small("spec.family", m.GetFamily()), Idle: p.duration("spec.idle", m.GetIdle()),
		Spec: p.probeSpec("spec.spec", n),
	}
	if port := m.GetPort(); port > math.MaxUint16 {
		p.refuse("spec.port", "%d: not a port", port)
	} else {
		s.Port = uint16(port)
	}
	if m != nil && m.New != nil { //nolint:protogetter // absent is not 0
		if s.New = p.small("spec.new", m.GetNew()); s.New == 0 {
			s.New = -1
		}
	}
	if m != nil && m.Cold != nil { //nolint:protogetter // absent is not 0
		if s.Cold = p.small("spec.cold", m.GetCold()); s.Cold == 0 {
			s.Cold = -1
		}
	}
	valid, err := s.Validate()
	p.below("spec", err)
	return valid, p.err()
}

// parseStartProbeSpec is parseProbeSpec for a run of starts.
func parseStartProbeSpec(m *offloadv1.StartProbeSpec) (probe.StartSpec, error) {
	var p parser
	s := probe.StartSpec{
		Target: m.GetTarget(), Ports: m.GetPorts()[:min(len(m.GetPorts()), probe.MaxStartPorts+1)], Pool: m.GetPool(), Family: p.small("spec.family", m.GetFamily()),
		Port: uint16(p.upTo("spec.port", m.GetPort(), math.MaxUint16)), Count: p.small("spec.count", m.GetCount()), Wait: p.duration("spec.wait", m.GetWait()), Seed: m.GetSeed(),
		Interval: p.duration("spec.interval", m.GetInterval()),
	}
	for i, k := range m.GetKinds()[:min(len(m.GetKinds()), len(kinds))] { // there are no more
		s.Kinds = append(s.Kinds, string(enum(&p, at("spec.kinds", i), kinds, k)))
	}
	if g := m.GetGateway(); g != "" {
		s.Gateway = p.address("spec.gateway", g)
	}
	for i, n := range m.GetParallel()[:min(len(m.GetParallel()), maxProbeTexts)] {
		s.Parallel = append(s.Parallel, p.small(at("spec.parallel", i), n))
	}
	valid, err := s.Validate()
	p.below("spec", err)
	return valid, p.err()
}

// probeSpec reads what is at a field.
func (p *parser) probeSpec(field string, m *offloadv1.ProbeSpec) probe.Spec {
	s := probe.Spec{
		Baseline: m.GetBaseline(),
		Wire:     result.Wire{Delay: p.duration(field+".wire.delay", m.GetWire().GetDelay()), Jitter: p.duration(field+".wire.jitter", m.GetWire().GetJitter()), Loss: m.GetWire().GetLoss()},
		Study:    m.GetStudy(),
		Sessions: p.small(field+".sessions", m.GetSessions()),
		Count:    p.small(field+".count", m.GetCount()),
		Burst:    p.small(field+".burst", m.GetBurst()),
		Warmup:   p.duration(field+".warmup", m.GetWarmup()),
		Timeout:  p.duration(field+".timeout", m.GetTimeout()),
		Busy:     m.GetBusy(),
		Segments: m.GetSegments(),
		Fresh:    m.GetFresh(),
		Margin:   p.duration(field+".margin", m.GetMargin()),
		Seed:     m.GetSeed(),
	}
	if n := len(m.GetPaths()); n > maxProbeTexts {
		p.refuse(field+".paths", "has %d, more than %d", n, maxProbeTexts)
	} else if n > 0 {
		s.Paths = m.GetPaths()
	}
	if m != nil && m.Priority != nil { //nolint:protogetter // absent is not 0
		n := p.small(field+".priority", m.GetPriority())
		s.Priority = &n
	}
	if m != nil && (m.ClientCpu != nil || m.ServerCpu != nil) { //nolint:protogetter // absent is not 0
		s.CPUs = &[2]int{-1, -1}
		if m.ClientCpu != nil { //nolint:protogetter // absent is not 0
			s.CPUs[0] = p.small(field+".client_cpu", m.GetClientCpu())
		}
		if m.ServerCpu != nil { //nolint:protogetter // absent is not 0
			s.CPUs[1] = p.small(field+".server_cpu", m.GetServerCpu())
		}
	}
	for i, l := range m.GetLoads()[:min(len(m.GetLoads()), probe.MaxLoads+1)] { // one too many is enough to be refused
		s.Loads = append(s.Loads, p.load(at(field+".loads", i), l))
	}
	return s
}

func (p *parser) load(field string, m *offloadv1.ProbeLoad) result.Load {
	l := result.Load{
		Mode:      enum(p, field+".mode", probeModes, m.GetMode()),
		Transport: enum(p, field+".transport", probeTransports, m.GetTransport()),
		Size:      p.small(field+".size", m.GetSize()),
		Answer:    p.small(field+".answer", m.GetAnswer()),
		Rate:      m.GetRate(),
		Duration:  p.duration(field+".duration", m.GetDuration()),
		Under:     m.GetUnder(),
	}
	if l.Mode == "" {
		l.Mode = result.RR
	}
	if l.Transport == "" {
		l.Transport = "udp"
		if l.Mode == result.CRR {
			l.Transport = "tcp"
		}
	}
	if l.Size == 0 {
		l.Size = 64
	}
	return l
}

// duration takes one that is not negative.
func (p *parser) duration(field string, m *durationpb.Duration) time.Duration {
	if m == nil {
		return 0
	}
	d := m.AsDuration()
	if err := m.CheckValid(); err != nil || d < 0 || d == math.MaxInt64 {
		p.refuse(field, "%s: not a duration that can be", strings.Join(strings.Fields(fmt.Sprint(m)), " "))
		return 0
	}
	return d
}
