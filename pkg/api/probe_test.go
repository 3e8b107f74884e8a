package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A run arrives as progress and then in parts, in order, none larger than a message may be.
func TestProbeRun(t *testing.T) {
	s := serve(t)
	s.run = bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16+1)
	c := offloadv1.NewProbeServiceClient(s.dial(t))
	stream, err := c.Run(soon(t), &offloadv1.RunRequest{Spec: &offloadv1.ProbeSpec{Sessions: 3}})
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	progress := 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if p := m.GetProgress(); p != nil {
			if progress++; len(text) > 0 || p.GetSessions() != 3 || p.GetSession() != 1 || p.GetFraction() != 0.5 || p.GetDoing() != "udp rr 64 B" {
				t.Errorf("progress %v after %d octets", p, len(text))
			}
		}
		if len(m.GetRun()) > maxChunk {
			t.Errorf("a part of %d octets", len(m.GetRun()))
		}
		text = append(text, m.GetRun()...)
	}
	if progress != 1 || !bytes.Equal(text, s.run) {
		t.Errorf("%d times progress and %d octets, want 1 and %d", progress, len(text), len(s.run))
	}

	get, err := c.GetRun(soon(t), &offloadv1.GetRunRequest{Id: "20260102-030405-0001"})
	if err != nil {
		t.Fatal(err)
	}
	text = nil
	for {
		m, err := get.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, m.GetRun()...)
	}
	if !bytes.Equal(text, s.run) {
		t.Errorf("GetRun: %d octets, want %d", len(text), len(s.run))
	}
}

// Who ends the call ends the run.
func TestProbeCancel(t *testing.T) {
	s := serve(t)
	ended := make(chan error, 1)
	s.act = func(ctx context.Context, method string, _ any) error {
		if method != "Run" {
			return nil
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(soon(t))
	stream, err := offloadv1.NewProbeServiceClient(s.dial(t)).Run(ctx, &offloadv1.RunRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetProgress() == nil {
		t.Fatalf("%v, %v, want progress", m, err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the run goes on")
	}
}

// Every field of a request arrives where it belongs; what cannot be is refused by its name.
func TestParseProbeSpec(t *testing.T) {
	number := func(n uint32) *uint32 { return &n }
	got, err := parseProbeSpec(&offloadv1.ProbeSpec{
		Paths: []string{"metal", "veth"}, Baseline: "veth", Wire: &offloadv1.ProbeWire{Delay: durationpb.New(2), Jitter: durationpb.New(1), Loss: 0.1},
		Loads: []*offloadv1.ProbeLoad{
			{},
			{Mode: offloadv1.ProbeMode_PROBE_MODE_CRR},
			{Mode: offloadv1.ProbeMode_PROBE_MODE_OPEN, Transport: offloadv1.ProbeTransport_PROBE_TRANSPORT_TCP, Size: 100, Answer: 350, Rate: 5, Duration: durationpb.New(time.Second)},
			{Under: 0.3},
		},
		Sessions: 6, Count: 100, Burst: 7, Warmup: durationpb.New(3 * time.Second), Timeout: durationpb.New(4 * time.Second), Busy: true, Priority: number(0),
		ServerCpu: number(1), Segments: true, Fresh: true, Margin: durationpb.New(5), Seed: 9,
	})
	priority := 0
	want := probe.Spec{
		Paths: []string{"metal", "veth"}, Baseline: "veth", Wire: result.Wire{Delay: 2, Jitter: 1, Loss: 0.1},
		Loads: []result.Load{
			{Mode: "rr", Transport: "udp", Size: 64},
			{Mode: "crr", Transport: "tcp", Size: 64},
			{Mode: "open", Transport: "tcp", Size: 100, Answer: 350, Rate: 5, Duration: time.Second},
			{Mode: "rr", Transport: "udp", Size: 64, Under: 0.3},
		},
		Sessions: 6, Count: 100, Burst: 7, Warmup: 3 * time.Second, Timeout: 4 * time.Second, Busy: true, Priority: &priority,
		CPUs: &[2]int{-1, 1}, Segments: true, Fresh: true, Margin: 5, Seed: 9,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := parseProbeSpec(nil); err != nil || got.Sessions != probe.DefaultSessions || got.Paths != nil {
		t.Errorf("no request: %+v, %v", got, err)
	}

	for field, m := range map[string]*offloadv1.ProbeSpec{
		"spec.sessions":          {Sessions: 1 << 31},
		"spec.count":             {Count: 1<<32 - 1},
		"spec.burst":             {Burst: 1 << 31},
		"spec.priority":          {Priority: number(1 << 31)},
		"spec.client_cpu":        {ClientCpu: number(1 << 31)},
		"spec.server_cpu":        {ServerCpu: number(5000)},
		"spec.paths":             {Paths: make([]string, maxProbeTexts+1)},
		"spec.paths[0]":          {Paths: []string{"moon"}},
		"spec.baseline":          {Paths: []string{"metal"}, Baseline: "moon"},
		"spec.study":             {Study: "mine"},
		"spec.wire":              {Wire: &offloadv1.ProbeWire{Loss: 2}},
		"spec.wire.delay":        {Wire: &offloadv1.ProbeWire{Delay: durationpb.New(-1)}},
		"spec.wire.jitter":       {Wire: &offloadv1.ProbeWire{Jitter: &durationpb.Duration{Nanos: -1, Seconds: 1}}},
		"spec.warmup":            {Warmup: durationpb.New(-1)},
		"spec.timeout":           {Timeout: durationpb.New(1)},
		"spec.margin":            {Margin: &durationpb.Duration{Seconds: 1 << 62}},
		"spec.loads":             {Loads: make([]*offloadv1.ProbeLoad, 5000)},
		"spec.loads[0].mode":     {Loads: []*offloadv1.ProbeLoad{{Mode: 77}}},
		"spec.loads[0].duration": {Loads: []*offloadv1.ProbeLoad{{Duration: durationpb.New(-1)}}},
		"spec.loads[0]":          {Loads: []*offloadv1.ProbeLoad{{Size: 3}}},
		"spec.loads[1]":          {Loads: []*offloadv1.ProbeLoad{{}, {}}},
		"spec.loads[2]":          {Loads: []*offloadv1.ProbeLoad{{}, {Under: 0.5}, {Under: 1.1}}},
	} {
		_, err := parseProbeSpec(m)
		e, ok := errors.AsType[*reason.Error](err)
		if !ok || e.Reason != reason.InvalidField || e.Fields[0].Path != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Every field of a request for starts arrives where it belongs; what cannot be is refused by its name.
func TestParseStartProbeSpec(t *testing.T) {
	good := func(change func(*offloadv1.StartProbeSpec)) *offloadv1.StartProbeSpec {
		m := &offloadv1.StartProbeSpec{
			Target: "db", Ports: []string{"a", "b"}, Kinds: []offloadv1.PortKind{offloadv1.PortKind_PORT_KIND_VF, offloadv1.PortKind_PORT_KIND_SF}, Pool: "fast", Gateway: "10.0.0.1",
			Port: 53, Family: 4, Count: 7, Parallel: []uint32{1, 2}, Wait: durationpb.New(3 * time.Second), Interval: durationpb.New(2 * time.Millisecond), Seed: 9,
		}
		if change != nil {
			change(m)
		}
		return m
	}
	want := probe.StartSpec{
		Target: "db", Ports: []string{"a", "b"}, Kinds: []string{"vf", "sf"}, Pool: "fast", Gateway: netip.MustParseAddr("10.0.0.1"), Port: 53, Family: 4, Count: 7,
		Parallel: []int{1, 2}, Wait: 3 * time.Second, Interval: 2 * time.Millisecond, Seed: 9,
	}
	if got, err := parseStartProbeSpec(good(nil)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for field, change := range map[string]func(*offloadv1.StartProbeSpec){
		"spec.target":      func(m *offloadv1.StartProbeSpec) { m.Target = "" },
		"spec.ports":       func(m *offloadv1.StartProbeSpec) { m.Ports = make([]string, 1<<20) },
		"spec.kinds[0]":    func(m *offloadv1.StartProbeSpec) { m.Kinds[0] = 77 },
		"spec.kinds[1]":    func(m *offloadv1.StartProbeSpec) { m.Kinds[1] = offloadv1.PortKind_PORT_KIND_AUTO },
		"spec.gateway":     func(m *offloadv1.StartProbeSpec) { m.Gateway = "router" },
		"spec.port":        func(m *offloadv1.StartProbeSpec) { m.Port = 1 << 16 },
		"spec.family":      func(m *offloadv1.StartProbeSpec) { m.Family = 1 << 31 },
		"spec.count":       func(m *offloadv1.StartProbeSpec) { m.Count = 1 << 31 },
		"spec.parallel[1]": func(m *offloadv1.StartProbeSpec) { m.Parallel[1] = 1 << 31 },
		"spec.parallel":    func(m *offloadv1.StartProbeSpec) { m.Parallel = make([]uint32, 1<<20) },
		"spec.wait":        func(m *offloadv1.StartProbeSpec) { m.Wait = durationpb.New(-1) },
		"spec.interval":    func(m *offloadv1.StartProbeSpec) { m.Interval = durationpb.New(1) },
	} {
		_, err := parseStartProbeSpec(good(change))
		e, ok := errors.AsType[*reason.Error](err)
		if !ok || e.Reason != reason.InvalidField || !slices.ContainsFunc(e.Fields, func(f reason.Field) bool { return f.Path == field }) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := parseStartProbeSpec(nil); reason.Of(err) != reason.InvalidField {
		t.Errorf("no request: %v", err)
	}
}

// What is kept is listed, also what cannot be read.
func TestListRuns(t *testing.T) {
	s := serve(t)
	s.runs = []probe.Summary{
		{
			ID: "b", Started: time.Unix(5, 0), Ended: time.Unix(7, 0), Program: "offloadd 1", Kernel: "6.1", Baseline: "metal", Paths: []string{"metal", "veth"},
			Loads: []result.Load{{Mode: "rr", Transport: "udp", Size: 64}}, Sessions: 10, Octets: 99,
		},
		{ID: "a"},
	}
	r, err := offloadv1.NewProbeServiceClient(s.dial(t)).ListRuns(soon(t), &offloadv1.ListRunsRequest{})
	if err != nil {
		t.Fatal(client.Error(err))
	}
	all := r.GetRuns()
	if len(all) != 2 || all[0].GetStartTime().AsTime().Unix() != 5 || all[0].GetEndTime().AsTime().Unix() != 7 || all[0].GetLoads()[0] != "udp rr 64 B" ||
		all[0].GetSize() != 99 || all[0].GetKernel() != "6.1" || len(all[0].GetPaths()) != 2 || all[1].GetId() != "a" || all[1].GetStartTime() != nil {
		t.Errorf("%v", all)
	}
}

// A run between two ports is asked for as any other, and arrives as one.
func TestParsePortProbeSpec(t *testing.T) {
	number := func(n uint32) *uint32 { return &n }
	got, err := parsePortProbeSpec(&offloadv1.PortProbeSpec{
		Client: "a", Server: "b", Port: 53, Family: 6, New: number(0), Cold: number(3), Idle: durationpb.New(time.Second),
		Spec: &offloadv1.ProbeSpec{Sessions: 6, Count: 100, Burst: 7, Seed: 9, Busy: true},
	})
	if err != nil || got.Client != "a" || got.Server != "b" || got.Port != 53 || got.Family != 6 || got.New != -1 || got.Cold != 3 || got.Idle != time.Second ||
		got.Sessions != 6 || got.Count != 100 || got.Burst != 7 || got.Seed != 9 || !got.Busy || len(got.Loads) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := parsePortProbeSpec(&offloadv1.PortProbeSpec{Client: "a", Server: "b"}); err != nil || got.New != probe.DefaultNew || got.Cold != probe.DefaultCold {
		t.Errorf("by default: %+v, %v", got, err)
	}
	for field, m := range map[string]*offloadv1.PortProbeSpec{
		"spec.client":              {Server: "b"},
		"spec.server":              {Client: "a", Server: "a"},
		"spec.port":                {Client: "a", Server: "b", Port: 70000},
		"spec.family":              {Client: "a", Server: "b", Family: 5},
		"spec.new":                 {Client: "a", Server: "b", New: number(1000)},
		"spec.cold":                {Client: "a", Server: "b", Cold: number(1 << 31)},
		"spec.idle":                {Client: "a", Server: "b", Idle: durationpb.New(-1)},
		"spec.spec":                {Client: "a", Server: "b", Spec: &offloadv1.ProbeSpec{Paths: []string{"metal"}}},
		"spec.spec.sessions":       {Client: "a", Server: "b", Spec: &offloadv1.ProbeSpec{Sessions: 1 << 31}},
		"spec.spec.count":          {Client: "a", Server: "b", Spec: &offloadv1.ProbeSpec{Count: 1 << 30}},
		"spec.spec.loads[0].under": {Client: "a", Server: "b", Spec: &offloadv1.ProbeSpec{Loads: []*offloadv1.ProbeLoad{{Under: 0.3}}}},
		"spec.spec.loads[0]":       {Client: "a", Server: "b", Spec: &offloadv1.ProbeSpec{Loads: []*offloadv1.ProbeLoad{{Transport: offloadv1.ProbeTransport_PROBE_TRANSPORT_TCP}}}},
	} {
		_, err := parsePortProbeSpec(m)
		var e *reason.Error
		if !errors.As(err, &e) || e.Reason != reason.InvalidField || len(e.Fields) == 0 || e.Fields[0].Path != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
