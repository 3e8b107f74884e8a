package api

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/reason"
)

func TestMain(m *testing.M) {
	if os.Getenv(stranger) != "" {
		os.Exit(beStranger())
	}
	goleak.VerifyTestMain(m)
}

// A behind is what is behind the seams in tests: each method calls act, if there is one, and then answers.
type behind struct {
	feed *ports.Feed

	// act is called with the seam's method and argument.
	act func(ctx context.Context, method string, arg any) error

	inventory inventory
	plan      device.Plan // of all operations on devices

	chassis []Chassis
	flows   []Flow

	run  []byte
	runs []probe.Summary

	pairs        []monitor.State
	pairsChanged chan struct{}
}

func (b *behind) do(ctx context.Context, method string, arg any) error {
	if b.act == nil {
		return nil
	}
	return b.act(ctx, method, arg)
}

func (b *behind) Create(ctx context.Context, req ports.CreateRequest) (ports.Port, error) {
	if err := b.do(ctx, "Create", req); err != nil {
		return ports.Port{}, err
	}
	p := ports.Port{Spec: req.Spec}
	if req.ValidateOnly {
		return p, nil
	}
	p.State = ports.Ready
	return b.feed.Put(p), nil
}

func (b *behind) Delete(ctx context.Context, req ports.DeleteRequest) (bool, error) {
	if err := b.do(ctx, "Delete", req); err != nil {
		return false, err
	}
	_, existed := b.feed.Find(req.Key)
	if !req.ValidateOnly {
		b.feed.Remove(req.Key)
	}
	return existed, nil
}

func (b *behind) Check(ctx context.Context, req ports.CheckRequest) ([]ports.Problem, error) {
	return []ports.Problem{{Reason: reason.LinkMissing, Message: "no eth0"}}, b.do(ctx, "Check", req)
}

func (b *behind) Run(ctx context.Context, spec probe.Spec, tell func(probe.Progress)) ([]byte, error) {
	tell(probe.Progress{Fraction: 0.5, Doing: "udp rr 64 B", Session: 1, Sessions: spec.Sessions})
	return b.run, b.do(ctx, "Run", spec)
}

func (b *behind) RunPorts(ctx context.Context, spec probe.PortSpec, tell func(probe.Progress)) ([]byte, error) {
	tell(probe.Progress{Fraction: 0.5, Doing: "udp rr 64 B", Session: 1, Sessions: spec.Sessions})
	return b.run, b.do(ctx, "RunPorts", spec)
}

func (b *behind) RunStarts(ctx context.Context, spec probe.StartSpec, tell func(probe.Progress)) ([]byte, error) {
	tell(probe.Progress{Fraction: 0.5, Doing: "veth, 1 of 2"})
	return b.run, b.do(ctx, "RunStarts", spec)
}

func (b *behind) Runs() ([]probe.Summary, error) {
	return b.runs, b.do(context.Background(), "Runs", nil)
}

func (b *behind) Text(id string) ([]byte, error) {
	return b.run, b.do(context.Background(), "Text", id)
}

func (b *behind) Clean(ctx context.Context) ([]string, error) {
	return []string{"/run/netns/opr0-pod1", "process 7"}, b.do(ctx, "Clean", nil)
}

func (b *behind) Feed() *ports.Feed { return b.feed }

func (b *behind) Known(ctx context.Context) error { return b.do(ctx, "Known", nil) }

func (b *behind) Identity(ctx context.Context) (Identity, error) {
	return Identity{Version: "v1", Capabilities: []string{"port.veth", "flow.trace"}, Started: time.Unix(1, 0)}, b.do(ctx, "Identity", nil)
}

func (b *behind) Status(ctx context.Context, _ StatusRequest) (Status, error) {
	return Status{Chassis: "n1", Skipped: map[string]int{"x": 2, "": 1}, Databases: []Database{{Name: "b"}, {Name: "a"}}, Offload: Offload{Mode: OffloadOff}}, b.do(ctx, "Status", nil)
}

func (b *behind) Chassis(ctx context.Context) ([]Chassis, error) {
	return b.chassis, b.do(ctx, "Chassis", nil)
}

func (b *behind) Tunnels(ctx context.Context) ([]Tunnel, error) {
	return []Tunnel{{Interface: "ovn-b-0"}, {Interface: "ovn-a-0"}}, b.do(ctx, "Tunnels", nil)
}

func (b *behind) Zones(ctx context.Context) ([]Zone, error) {
	return []Zone{{"p2", 2}, {"p1", 1}}, b.do(ctx, "Zones", nil)
}
func (b *behind) Recompute(ctx context.Context) error { return b.do(ctx, "Recompute", nil) }
func (b *behind) Leave(ctx context.Context) error     { return b.do(ctx, "Leave", nil) }

func (b *behind) LogicalFlows(ctx context.Context, f LogicalFlowFilter, yield func(LogicalFlow) error) error {
	if err := b.do(ctx, "LogicalFlows", f); err != nil {
		return err
	}
	return yield(LogicalFlow{UUID: "u", Pipeline: Egress, Flows: b.flows})
}

func (b *behind) Flows(ctx context.Context, f FlowFilter, yield func(Flow) error) error {
	if err := b.do(ctx, "Flows", f); err != nil {
		return err
	}
	for _, flow := range b.flows {
		if err := yield(flow); err != nil {
			return err
		}
	}
	return nil
}

func (b *behind) Trace(ctx context.Context, r TraceRequest, yield func(TraceStep) error) error {
	if err := b.do(ctx, "Trace", r); err != nil {
		return err
	}
	return yield(TraceStep{Kind: TraceOutput, LogicalPort: "p2", Via: "local"})
}

func (b *behind) Filters(ctx context.Context, f FilterFilter, yield func(Filter) error) error {
	if err := b.do(ctx, "Filters", f); err != nil {
		return err
	}
	return yield(Filter{Chain: 5, Pref: 100, Kind: FilterRule, State: FilterMissing})
}

func (b *behind) Chains(ctx context.Context, port string, yield func(ChainItem) error) error {
	if err := b.do(ctx, "Chains", port); err != nil {
		return err
	}
	if err := yield(ChainItem{Chain: &Chain{Number: 5, EtherType: 0x800}}); err != nil {
		return err
	}
	return yield(ChainItem{Rule: &ChainRule{Verdict: ChainPunt, Reason: "nat", LogicalFlow: &LogicalFlow{UUID: "u"}}})
}

func (b *behind) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	return Explanation{
		Device:  "v1",
		Punts:   []Punt{{Reason: "nat", LogicalFlow: &LogicalFlow{UUID: "u"}}},
		Layers:  []LayerVerdict{{LayerTC, LayerPasses, "nat", false}},
		Filters: []Filter{{Chain: 5}},
	}, b.do(ctx, "Explain", r)
}

func (b *behind) PortCounters(ctx context.Context, port string, yield func(PortCounters) error) error {
	if err := b.do(ctx, "PortCounters", port); err != nil {
		return err
	}
	return yield(PortCounters{LogicalPort: "p1", Device: "v1", From: Counters{Packets: 8, Bytes: 800}, To: Counters{Packets: 9, Bytes: 900}})
}

func (b *behind) FilterDiff(ctx context.Context, yield func(FilterDifference) error) error {
	if err := b.do(ctx, "FilterDiff", nil); err != nil {
		return err
	}
	if err := yield(FilterDifference{Device: "v1"}); err != nil {
		return err
	}
	return yield(FilterDifference{Filter: &Filter{State: FilterForeign}})
}

// A logBuffer collects a log from many goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines returns the lines that contain s.
func (l *logBuffer) lines(s string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, s) {
			found = append(found, line)
		}
	}
	return found
}

// A served is a server that runs.
type served struct {
	*behind
	server *Server
	path   string
	log    *logBuffer
	stop   func() error // and wait; nil after an orderly end
}

// serve runs a server on a socket that everybody in the group nogroup may connect to.
func serve(t *testing.T) *served {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // so that others than root get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &served{behind: &behind{feed: ports.NewFeed()}, path: filepath.Join(dir, "api.sock"), log: &logBuffer{}}
	s.server = NewServer(s.behind, s.behind, s.behind, s.behind, s.behind, s.behind, slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l, err := Listen(s.path, nogroup)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := client.Dial(s.path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// soon is a context with a deadline that nothing here should reach.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const nogroup = 65534

// dialRaw connects without gRPC.
func (s *served) dialRaw(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
