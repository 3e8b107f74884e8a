package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A fake is a daemon of fixed content.
type fake struct {
	offloadv1.UnimplementedPortServiceServer
	offloadv1.UnimplementedNodeServiceServer
	offloadv1.UnimplementedFlowServiceServer
	offloadv1.UnimplementedDeviceServiceServer
	offloadv1.UnimplementedProbeServiceServer
	offloadv1.UnimplementedMonitorServiceServer

	status *offloadv1.GetStatusResponse
	ports  []*offloadv1.Port
	flows  int              // how many ListFlows sends after the fixed ones
	sent   func(n int) bool // called before each of them; false: wait until the caller is gone
	fail   error            // what every call ends with, if not nil

	differs   bool // the kernel's filters are not as they should be
	delegated bool // offload is, to Open vSwitch

	tidy bool     // an audit finds nothing
	done []string // to devices
}

// sockets counts what serve has made.
var sockets atomic.Int32

// serve returns the path of a socket at which f answers.
func (f *fake) serve(t *testing.T) string {
	t.Helper()
	path := fmt.Sprintf("@offloadctl-%d-%d", os.Getpid(), sockets.Add(1)) // abstract: it needs no directory
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if f.fail != nil {
				return nil, f.fail
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if f.fail != nil {
				return f.fail
			}
			return next(srv, ss)
		}))
	offloadv1.RegisterPortServiceServer(s, f)
	offloadv1.RegisterNodeServiceServer(s, f)
	offloadv1.RegisterFlowServiceServer(s, f)
	offloadv1.RegisterDeviceServiceServer(s, f)
	offloadv1.RegisterProbeServiceServer(s, f)
	offloadv1.RegisterMonitorServiceServer(s, f)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return path
}

var now = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func since(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func newFake() *fake {
	return &fake{
		status: &offloadv1.GetStatusResponse{
			Chassis: "n1",
			Subsystems: []*offloadv1.Subsystem{
				{Name: "offload.bridge", Serving: true, Since: since(time.Hour)},
				{Name: "offload.filter", Serving: true, Since: since(time.Hour)},
				{Name: "offload.ovs", Serving: true, Since: since(time.Hour)},
				{Name: "offload.port", Serving: true, Since: since(time.Hour)},
				{Name: "offload.sb", Serving: true, Since: since(50 * time.Second)},
			},
			Databases: []*offloadv1.Database{
				{Name: "OVN_Southbound", Remote: "tcp:192.0.2.1:6642", Connected: true, Synced: true, Rows: map[string]uint64{"Chassis": 2, "Logical_Flow": 321}},
				{Name: "Open_vSwitch", Remote: "unix:/run/openvswitch/db.sock", Connected: true, Synced: true},
			},
			Bridge: &offloadv1.Bridge{Name: "br-int", Connected: true, Installed: true, FlowsDesired: 456, FlowModsSent: 789},
			Turn:   12, AckedTurn: 12, NbCfg: 3, LocalDatapaths: 2, LocalPorts: 2, Tunnels: 1,
			Skipped: []*offloadv1.SkippedRows{{Action: "event", Count: 2}},
			Offload: &offloadv1.Offload{
				Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DIRECT, Filters: 827, Devices: 3, ChainStates: 12, Foreign: 1,
				Computed: since(time.Minute), Took: durationpb.New(3200 * time.Microsecond), Turn: 12, AckedTurn: 12,
			},
		},
		ports: []*offloadv1.Port{
			fakePort("web1", "c1", 1, offloadv1.PortState_PORT_STATE_READY, 4, 30),
			ofSF(fakePort("web2", "c2", 2, offloadv1.PortState_PORT_STATE_FAILED, 9, 70)),
		},
	}
}

// fakePort has the steps "link" and "installed" that took so many milliseconds.
func fakePort(name, container string, n uint32, state offloadv1.PortState, link, installed int) *offloadv1.Port {
	took := func(ms int) *durationpb.Duration { return durationpb.New(time.Duration(ms) * time.Millisecond) }
	began := now.Add(-time.Minute)
	p := &offloadv1.Port{
		Spec: &offloadv1.PortSpec{
			Key:   &offloadv1.PortKey{Network: "pods", ContainerId: container, Ifname: "eth0"},
			Netns: "/run/netns/" + container, Kind: offloadv1.PortKind_PORT_KIND_VETH, LogicalPort: name,
			Labels: map[string]string{"pod": name},
		},
		Status: &offloadv1.PortStatus{
			Kind: offloadv1.PortKind_PORT_KIND_VETH, State: state, HostInterface: "veth" + container, Mac: fmt.Sprintf("0a:00:00:00:00:%02x", n),
			Addresses: []string{fmt.Sprintf("10.0.0.%d/24", n), fmt.Sprintf("fd00::%d/64", n)}, Gateways: []string{"10.0.0.254"},
			Routes: []*offloadv1.Route{{Destination: "192.0.2.0/24", Gateway: "10.0.0.253", Metric: 10}},
			Mtu:    1442, Ofport: n, Zone: n + 100, Created: timestamppb.New(began),
			Timeline: []*offloadv1.Step{
				{Name: "link", Started: timestamppb.New(began), Duration: took(link)},
				{Name: "installed", Started: timestamppb.New(began.Add(time.Duration(link) * time.Millisecond)), Duration: took(installed)},
			},
		},
		Revision: uint64(n),
	}
	if state == offloadv1.PortState_PORT_STATE_FAILED {
		p.Status.Reason, p.Status.Message = "LINK_MISSING", "ports check: veth"+container+" does not exist"
	}
	return p
}

// ofSF makes an SF of a port that would rather have been a VF.
func ofSF(p *offloadv1.Port) *offloadv1.Port {
	p.Spec.Kind, p.Spec.Pool = offloadv1.PortKind_PORT_KIND_AUTO, "fast"
	p.Spec.Fallback = []offloadv1.PortKind{offloadv1.PortKind_PORT_KIND_VF, offloadv1.PortKind_PORT_KIND_SF}
	p.Spec.Attributes = &offloadv1.FunctionAttributes{
		Vlan: 7, Qos: 3, VlanProtocol: offloadv1.VlanProtocol_VLAN_PROTOCOL_8021AD, Trust: new(false), SpoofCheck: new(true),
		LinkState: offloadv1.LinkState_LINK_STATE_ENABLE, MinRate: 1e6, MaxRate: 1e9,
	}
	p.Status.Kind, p.Status.FellBack = offloadv1.PortKind_PORT_KIND_SF, "there is no vf to be had"
	p.Status.Function = &offloadv1.PortFunction{
		Device: "mlx5_core.sf.4", Bus: "auxiliary", Pool: "fast", DevlinkPort: "pci/0000:03:00.0/32768", Number: 88, Numa: 1, Generation: 41,
	}
	return p
}

func (f *fake) GetStatus(context.Context, *offloadv1.GetStatusRequest) (*offloadv1.GetStatusResponse, error) {
	return f.status, nil
}

func (f *fake) GetInfo(context.Context, *offloadv1.GetInfoRequest) (*offloadv1.GetInfoResponse, error) {
	return &offloadv1.GetInfoResponse{
		ApiVersions: []string{"offload.v1"}, Capabilities: []string{"flow.trace", "port.veth"},
		Build: &offloadv1.Build{Version: "v0.1.0", Go: "go1.26.8"}, Started: since(3 * time.Hour), Hostname: "node1", Chassis: "n1",
		SchemaVersions: map[string]string{"Open_vSwitch": "8.3.1"}, KernelVersion: "6.1.0", OvsVersion: "3.1.0",
	}, nil
}

// ListChassis has two pages.
func (f *fake) ListChassis(_ context.Context, req *offloadv1.ListChassisRequest) (*offloadv1.ListChassisResponse, error) {
	if req.GetPageToken() == "" {
		return &offloadv1.ListChassisResponse{NextPageToken: "2", Chassis: []*offloadv1.Chassis{
			{Name: "n1", Hostname: "node1", Local: true, NbCfg: 3, Encaps: []*offloadv1.Encap{{Type: "geneve", Ip: "192.0.2.11"}}},
		}}, nil
	}
	return &offloadv1.ListChassisResponse{Chassis: []*offloadv1.Chassis{
		{Name: "n2", Hostname: "node2", NbCfg: 3, Encaps: []*offloadv1.Encap{{Type: "geneve", Ip: "192.0.2.12"}, {Type: "vxlan", Ip: "192.0.2.12"}}, BridgeMappings: "phys:br-ex"},
	}}, nil
}

func (f *fake) ListTunnels(context.Context, *offloadv1.ListTunnelsRequest) (*offloadv1.ListTunnelsResponse, error) {
	return &offloadv1.ListTunnelsResponse{Tunnels: []*offloadv1.Tunnel{
		{Interface: "ovn-n2-0", Chassis: "n2", Type: "geneve", RemoteIp: "192.0.2.12", Ofport: 5},
	}}, nil
}

func (f *fake) ListZones(context.Context, *offloadv1.ListZonesRequest) (*offloadv1.ListZonesResponse, error) {
	return &offloadv1.ListZonesResponse{Zones: []*offloadv1.Zone{
		{Owner: "4b1c0f7e-1111-2222-3333-444455556666_dnat", Zone: 1},
		{Owner: "4b1c0f7e-1111-2222-3333-444455556666_snat", Zone: 2},
		{Owner: "web1", Zone: 101},
		{Owner: "web2", Zone: 102},
	}}, nil
}

func (f *fake) Recompute(context.Context, *offloadv1.RecomputeRequest) (*offloadv1.RecomputeResponse, error) {
	return nil, refusal(codes.PermissionDenied, reason.PermissionDenied, "api /offload.v1.NodeService/Recompute: only root may, not uid 1000", nil)
}

func (f *fake) ListPorts(_ context.Context, req *offloadv1.ListPortsRequest) (*offloadv1.ListPortsResponse, error) {
	r := &offloadv1.ListPortsResponse{}
	for _, p := range f.ports {
		states := req.GetFilter().GetStates()
		if len(states) == 0 || states[0] == p.GetStatus().GetState() {
			r.Ports = append(r.Ports, p)
		}
	}
	return r, nil
}

func (f *fake) GetPort(_ context.Context, req *offloadv1.GetPortRequest) (*offloadv1.GetPortResponse, error) {
	for _, p := range f.ports {
		if keyText(p.GetSpec().GetKey()) == keyText(req.GetKey()) {
			return &offloadv1.GetPortResponse{Port: p}, nil
		}
	}
	return nil, refusal(codes.NotFound, reason.PortNotFound, "api port "+keyText(req.GetKey())+": not found", nil)
}

func (f *fake) CheckPort(_ context.Context, req *offloadv1.CheckPortRequest) (*offloadv1.CheckPortResponse, error) {
	r := &offloadv1.CheckPortResponse{}
	if req.GetKey().GetContainerId() == "c2" {
		r.Problems = []*offloadv1.Problem{{Reason: "LINK_MISSING", Message: "vethc2 does not exist"}}
	}
	return r, nil
}

// WatchPorts loses something, and ends.
func (f *fake) WatchPorts(_ *offloadv1.WatchPortsRequest, s offloadv1.PortService_WatchPortsServer) error {
	for _, e := range []*offloadv1.WatchPortsResponse{
		{Type: offloadv1.EventType_EVENT_TYPE_EXISTS, Port: f.ports[0]},
		{Type: offloadv1.EventType_EVENT_TYPE_EXISTS, Port: f.ports[1]},
		{Type: offloadv1.EventType_EVENT_TYPE_SYNCED, Revision: 2},
		{Type: offloadv1.EventType_EVENT_TYPE_DELETED, Port: f.ports[1], Revision: 3},
		{Type: offloadv1.EventType_EVENT_TYPE_HEARTBEAT, Revision: 3},
		{Type: offloadv1.EventType_EVENT_TYPE_LOST, Lost: 7},
		{Type: offloadv1.EventType_EVENT_TYPE_EXISTS, Port: f.ports[0]},
		{Type: offloadv1.EventType_EVENT_TYPE_SYNCED, Revision: 10},
	} {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func counters(packets, bytes uint64, d time.Duration) *offloadv1.Counters {
	return &offloadv1.Counters{Packets: packets, Bytes: bytes, Duration: durationpb.New(d)}
}

var fakeFlows = []*offloadv1.Flow{
	{
		Table: 8, Priority: 100, Cookie: 0xabc, Match: "metadata=0x1,vlan_tci=0x1000/0x1000", Actions: "drop", Rows: []string{"00000abc-0000-0000-0000-000000000000"},
		State: offloadv1.FlowState_FLOW_STATE_INSTALLED, Counters: counters(12, 1176, 90*time.Second), Filtered: seen(100, 9800),
	},
	{Table: 8, Priority: 50, Cookie: 0xdef, Match: "metadata=0x1", Actions: "resubmit(,9)", State: offloadv1.FlowState_FLOW_STATE_PENDING},
}

func (f *fake) ListFlows(req *offloadv1.ListFlowsRequest, s offloadv1.FlowService_ListFlowsServer) error {
	for _, flow := range fakeFlows {
		if len(req.GetStates()) == 0 || req.GetStates()[0] == flow.GetState() {
			if err := s.Send(&offloadv1.ListFlowsResponse{Flow: flow}); err != nil {
				return err
			}
		}
	}
	for n := range f.flows {
		if f.sent != nil && !f.sent(n) {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if err := s.Send(&offloadv1.ListFlowsResponse{Flow: fakeFlows[0]}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) ListLogicalFlows(req *offloadv1.ListLogicalFlowsRequest, s offloadv1.FlowService_ListLogicalFlowsServer) error {
	if req.GetDatapath() == "nowhere" {
		return refusal(codes.NotFound, reason.DatapathNotFound, `daemon: no local datapath "nowhere"`, map[string]string{"datapath": "nowhere"})
	}
	if len(req.GetUuid()) > 36 || strings.Trim(req.GetUuid(), "0123456789abcdef-") != "" {
		return refusal(codes.InvalidArgument, reason.InvalidField, fmt.Sprintf("api request: uuid %q: not the beginning of a UUID", req.GetUuid()), nil)
	}
	lf := &offloadv1.LogicalFlow{
		Uuid: "00000abc-0000-0000-0000-000000000000", Datapath: "4b1c0f7e-1111-2222-3333-444455556666", DatapathName: "sw0",
		Pipeline: offloadv1.Pipeline_PIPELINE_INGRESS, Priority: 100, Match: "vlan.present", Actions: "drop;", Flows: fakeFlows[:1],
		Filtered: seen(100, 9800),
	}
	other := &offloadv1.LogicalFlow{
		Uuid: "00000def-0000-0000-0000-000000000000", Datapath: lf.GetDatapath(), DatapathName: "sw0", Pipeline: offloadv1.Pipeline_PIPELINE_EGRESS,
		Table: 3, Priority: 50, Match: "1", Actions: "next;", Flows: fakeFlows[1:],
	}
	unknown := &offloadv1.LogicalFlow{
		Uuid: "00000123-0000-0000-0000-000000000000", Datapath: lf.GetDatapath(), DatapathName: "sw0", Pipeline: offloadv1.Pipeline_PIPELINE_EGRESS,
		Table: 3, Priority: 40, Match: "1", Actions: "event();", Skipped: "action event is not supported",
	}
	for _, lf := range []*offloadv1.LogicalFlow{lf, other, unknown} {
		if req.Table != nil && req.GetTable() != lf.GetTable() {
			continue
		}
		if err := s.Send(&offloadv1.ListLogicalFlowsResponse{LogicalFlow: lf}); err != nil {
			return err
		}
	}
	return nil
}

// Trace delivers what enters at p1, and drops everything else.
func (f *fake) Trace(req *offloadv1.TraceRequest, s offloadv1.FlowService_TraceServer) error {
	lf := &offloadv1.LogicalFlow{Uuid: "00000abc-0000-0000-0000-000000000000", Flows: fakeFlows[1:]}
	steps := []*offloadv1.TraceStep{
		{Kind: offloadv1.TraceStepKind_TRACE_STEP_KIND_PIPELINE, Text: `ingress(dp="sw0", inport="p1")`, Datapath: "sw0", Pipeline: offloadv1.Pipeline_PIPELINE_INGRESS},
		{Kind: offloadv1.TraceStepKind_TRACE_STEP_KIND_TABLE, Text: " 0. 1, priority 50, uuid 00000abc", LogicalFlow: lf},
		{Kind: offloadv1.TraceStepKind_TRACE_STEP_KIND_ACTION, Text: "next;"},
	}
	if strings.Contains(req.GetMicroflow(), `inport == "p1"`) {
		steps = append(steps, &offloadv1.TraceStep{
			Kind: offloadv1.TraceStepKind_TRACE_STEP_KIND_OUTPUT, Depth: 1, Text: `/* output to "p2", type "" */`, Datapath: "sw0", LogicalPort: "p2", Via: "tunnel to n2",
		})
	} else {
		steps = append(steps, &offloadv1.TraceStep{Kind: offloadv1.TraceStepKind_TRACE_STEP_KIND_DROP, Text: "no match (implicit drop)", Datapath: "sw0"})
	}
	for _, step := range steps {
		if err := s.Send(&offloadv1.TraceResponse{Step: step}); err != nil {
			return err
		}
	}
	return nil
}

func refusal(code codes.Code, r reason.Reason, message string, metadata map[string]string) error {
	s, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: string(r), Domain: reason.Domain, Metadata: metadata})
	if err != nil {
		return err
	}
	return s.Err()
}

// A shell runs offloadctl as a user would.
type shell struct {
	t      *testing.T
	socket string
	width  int
	env    map[string]string
}

func (s shell) run(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	code = run(s.t.Context(), args, env{
		stdin:  strings.NewReader(s.env["STDIN"]),
		stdout: &out, stderr: &errs, width: s.width,
		now: func() time.Time { return now },
		getenv: func(name string) string {
			if name == "OFFLOADCTL_SOCKET" {
				return s.socket
			}
			return s.env[name]
		},
	})
	return out.String(), errs.String(), code
}

// golden runs each line of a file: stdout, then stderr after "!", then the exit code unless it is 0. A line may
// begin with variables of the environment, and with WIDTH=, the terminal's, and STDIN=, what the user types.
func (s shell) golden(file string) {
	s.t.Helper()
	golden.Run(s.t, file, func(line string) string {
		sh := s
		sh.env = map[string]string{"TERM": "xterm"}
		words := words(line)
		for words[0] != "offloadctl" {
			name, value, _ := strings.Cut(words[0], "=")
			if name == "WIDTH" {
				if _, err := fmt.Sscan(value, &sh.width); err != nil {
					s.t.Fatal(err)
				}
			}
			sh.env[name] = value
			words = words[1:]
		}
		stdout, stderr, code := sh.run(words[1:]...)
		out := strings.ReplaceAll(stdout, "\x1b", "^[")
		for l := range strings.Lines(stderr) {
			out += "! " + l
		}
		if code != 0 {
			out += fmt.Sprintf("exit %d\n", code)
		}
		return strings.TrimSuffix(strings.ReplaceAll(out, s.socket, "SOCKET"), "\n")
	})
}

// words splits a line at blanks; what stands between ' is one word.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

func TestCommands(t *testing.T) {
	s := shell{t: t, socket: newFake().serve(t)}
	for _, file := range []string{"tables.txt", "programs.txt", "filters.txt", "refused.txt", "complete.txt", "devices.txt", "probe.txt"} {
		t.Run(file, func(t *testing.T) {
			s.t = t
			s.golden(filepath.Join("testdata", file))
		})
	}
}

func TestBrokenNode(t *testing.T) {
	f := newFake()
	f.status.Subsystems[4].Serving = false
	f.status.Subsystems[4].Reason, f.status.Subsystems[4].Message = string(reason.SBDisconnected), "connect 192.0.2.1:6642: refused"
	f.status.Databases[0].Connected = false
	f.status.Bridge.Installed = false
	f.status.RowsRefused = 1
	f.status.Subsystems[1].Serving = false
	f.status.Subsystems[1].Reason, f.status.Subsystems[1].Message = string(reason.KernelRefused), "1 refused, the first is add chain 5: no"
	f.status.Offload.Closed, f.status.Offload.Shadowed, f.status.Offload.AckedTurn = 2, 7, 11
	f.status.Offload.Refused = []*offloadv1.RefusedFilter{{What: "add chain 5", Error: "operation not supported"}}
	f.status.Offload.Error = "tc send: no buffer space available"
	f.status.ProbePairs, f.status.ProbeWorse = 2, fakePairs()[1:2]
	shell{t: t, socket: f.serve(t)}.golden("testdata/broken.txt")
}

// Why there are no filters is said in a line.
func TestNoFilters(t *testing.T) {
	for want, o := range map[string]*offloadv1.Offload{
		"Offload:  off\n":                      {Mode: offloadv1.OffloadMode_OFFLOAD_MODE_OFF},
		"Offload:  none: there is no bridge\n": {Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DIRECT, Idle: "there is no bridge", Computed: since(0)},
		"Offload:  not computed yet\n":         {Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DIRECT},
	} {
		f := newFake()
		f.status.Offload = o
		stdout, stderr, code := shell{t: t, socket: f.serve(t)}.run("status")
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("status: exit code %d\n%s%s\nwant %q", code, stdout, stderr, want)
		}
	}
}

func TestDifferentFilters(t *testing.T) {
	f := newFake()
	f.differs = true
	shell{t: t, socket: f.serve(t)}.golden("testdata/differs.txt")
}

func TestNobodyAnswers(t *testing.T) {
	shell{t: t, socket: "/nonexistent/sock"}.golden("testdata/away.txt")
}

// Every reason has an exit code, the same for each command.
func TestExitCodes(t *testing.T) {
	want := map[codes.Code]int{
		codes.InvalidArgument: 2, codes.NotFound: 3,
		codes.Unavailable: 4, codes.DeadlineExceeded: 4, codes.Canceled: 4, codes.Internal: 4, codes.DataLoss: 4,
		codes.AlreadyExists: 5, codes.PermissionDenied: 5, codes.ResourceExhausted: 5, codes.FailedPrecondition: 5,
		codes.Aborted: 5, codes.Unimplemented: 5,
	}
	for _, e := range reason.Table {
		f := newFake()
		f.fail = refusal(codes.Code(e.Code), e.Reason, "no", nil)
		s := shell{t: t, socket: f.serve(t)}
		for _, args := range [][]string{{"status"}, {"get", "ports"}, {"get", "flows"}, {"watch", "ports"}, {"node", "leave"}, {"pools"}, {"audit"}, {"device", "vfs", "p0", "8", "--yes"}} {
			_, stderr, code := s.run(args...)
			if code != want[codes.Code(e.Code)] {
				t.Errorf("%v with %s: exit code %d, want %d", args, e.Reason, code, want[codes.Code(e.Code)])
			}
			if !strings.Contains(stderr, string(e.Reason)) || !strings.Contains(stderr, e.Remedy) {
				t.Errorf("%v with %s says %q, want the reason and the remedy", args, e.Reason, stderr)
			}
		}
	}
}

// A daemon that does not come to an end is given up after --timeout.
func TestTimeout(t *testing.T) {
	f := newFake()
	f.flows, f.sent = 1, func(int) bool { return false }
	_, stderr, code := shell{t: t, socket: f.serve(t)}.run("get", "flows", "--timeout", "50ms")
	if code != exitUnavailable || !strings.Contains(stderr, "DEADLINE_EXCEEDED") {
		t.Errorf("exit code %d, %q; want %d and DEADLINE_EXCEEDED", code, stderr, exitUnavailable)
	}
}

// A long list is printed while it comes: the server waits in the middle for the first half to be there.
func TestListsAreStreamed(t *testing.T) {
	for _, format := range []string{"table", "json", "yaml"} {
		t.Run(format, func(t *testing.T) {
			const n = 2000
			var out signalling
			out.reached = make(chan struct{})
			f := newFake()
			f.flows, f.sent = n, func(i int) bool {
				if i == n/2 {
					select {
					case <-out.reached:
					case <-time.After(10 * time.Second):
						t.Error("nothing is printed before everything has come")
					}
				}
				return true
			}
			var errs bytes.Buffer
			code := run(t.Context(), []string{"get", "flows", "-o", format, "--socket", f.serve(t)}, env{
				stdout: &out, stderr: &errs, getenv: func(string) string { return "" }, now: func() time.Time { return now },
			})
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errs.String())
			}
			if got := bytes.Count(out.Bytes(), []byte("vlan_tci=0x1000/0x1000")); got != n+1 {
				t.Errorf("%d flows printed, want %d", got, n+1)
			}
		})
	}
}

// A signalling buffer tells when there are a few lines in it.
type signalling struct {
	bytes.Buffer
	reached chan struct{}
	told    bool
}

func (s *signalling) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if !s.told && s.Len() > 1000 {
		s.told = true
		close(s.reached)
	}
	return n, err
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                    "0s",
		119 * time.Second:               "119s",
		2 * time.Minute:                 "2m",
		9*time.Minute + 59*time.Second:  "9m59s",
		10*time.Minute + 59*time.Second: "10m",
		3*time.Hour + time.Minute:       "3h1m",
		8*time.Hour + time.Minute:       "8h",
		48 * time.Hour:                  "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

// The documentation has a line for each command and each exit code.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/offloadctl.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if !cmd.HasSubCommands() && !strings.Contains(string(text), "| `"+cmd.CommandPath()+"` |") {
			t.Errorf("docs/offloadctl.md has no line for %s", cmd.CommandPath())
		}
	}
	walk((&cli{env: env{getenv: func(string) string { return "" }}}).root())
	codes := regexp.MustCompile(`(?m)^  (\d)  (.*)$`).FindAllStringSubmatch(longHelp, -1)
	if len(codes) != 6 {
		t.Errorf("the help lists %d exit codes, want 6", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(string(text), "| "+c[1]+" | "+c[2]+" |") {
			t.Errorf("docs/offloadctl.md does not say that exit code %s is: %s", c[1], c[2])
		}
	}
}
