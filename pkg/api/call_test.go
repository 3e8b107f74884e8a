package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func goodSpec() *offloadv1.PortSpec {
	return &offloadv1.PortSpec{
		Key:         &offloadv1.PortKey{Network: "pods", ContainerId: "c1", Ifname: "eth0"},
		Netns:       "/run/netns/c1",
		LogicalPort: "p1",
		Mac:         "0a:00:00:00:00:01",
		Addresses:   []string{"10.0.0.5/24"},
	}
}

// calls has a valid call of each method of ours that ends. Those of streams return what the stream ended with.
var calls = map[string]func(context.Context, grpc.ClientConnInterface) error{
	offloadv1.PortService_CreatePort_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewPortServiceClient(c).CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: goodSpec(), RequestId: "r1"})
		return err
	},
	offloadv1.PortService_DeletePort_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewPortServiceClient(c).DeletePort(ctx, &offloadv1.DeletePortRequest{Key: goodSpec().GetKey()})
		return err
	},
	offloadv1.PortService_GetPort_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewPortServiceClient(c).GetPort(ctx, &offloadv1.GetPortRequest{Key: goodSpec().GetKey()})
		return err
	},
	offloadv1.PortService_ListPorts_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewPortServiceClient(c).ListPorts(ctx, &offloadv1.ListPortsRequest{})
		return err
	},
	offloadv1.PortService_CheckPort_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewPortServiceClient(c).CheckPort(ctx, &offloadv1.CheckPortRequest{Key: goodSpec().GetKey()})
		return err
	},
	offloadv1.NodeService_GetInfo_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).GetInfo(ctx, &offloadv1.GetInfoRequest{})
		return err
	},
	offloadv1.NodeService_GetStatus_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).GetStatus(ctx, &offloadv1.GetStatusRequest{})
		return err
	},
	offloadv1.NodeService_ListChassis_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).ListChassis(ctx, &offloadv1.ListChassisRequest{})
		return err
	},
	offloadv1.NodeService_ListTunnels_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).ListTunnels(ctx, &offloadv1.ListTunnelsRequest{})
		return err
	},
	offloadv1.NodeService_ListZones_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).ListZones(ctx, &offloadv1.ListZonesRequest{})
		return err
	},
	offloadv1.NodeService_Recompute_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).Recompute(ctx, &offloadv1.RecomputeRequest{})
		return err
	},
	offloadv1.NodeService_Leave_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewNodeServiceClient(c).Leave(ctx, &offloadv1.LeaveRequest{})
		return err
	},
	offloadv1.FlowService_ListLogicalFlows_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).ListLogicalFlows(ctx, &offloadv1.ListLogicalFlowsRequest{}))
	},
	offloadv1.FlowService_ListFlows_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).ListFlows(ctx, &offloadv1.ListFlowsRequest{}))
	},
	offloadv1.FlowService_Trace_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).Trace(ctx, &offloadv1.TraceRequest{Microflow: "ip4"}))
	},
	offloadv1.FlowService_ListFilters_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).ListFilters(ctx, &offloadv1.ListFiltersRequest{}))
	},
	offloadv1.FlowService_ListChains_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).ListChains(ctx, &offloadv1.ListChainsRequest{Port: "p1"}))
	},
	offloadv1.FlowService_Explain_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewFlowServiceClient(c).Explain(ctx, &offloadv1.ExplainRequest{Port: "p1"})
		return err
	},
	offloadv1.FlowService_DiffFilters_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).DiffFilters(ctx, &offloadv1.DiffFiltersRequest{}))
	},
	offloadv1.FlowService_ListPortCounters_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewFlowServiceClient(c).ListPortCounters(ctx, &offloadv1.ListPortCountersRequest{}))
	},
	offloadv1.DeviceService_ListDevices_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).ListDevices(ctx, &offloadv1.ListDevicesRequest{})
		return err
	},
	offloadv1.DeviceService_GetDevice_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).GetDevice(ctx, &offloadv1.GetDeviceRequest{Device: "p0"})
		return err
	},
	offloadv1.DeviceService_ListFunctions_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).ListFunctions(ctx, &offloadv1.ListFunctionsRequest{})
		return err
	},
	offloadv1.DeviceService_ListPools_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).ListPools(ctx, &offloadv1.ListPoolsRequest{})
		return err
	},
	offloadv1.DeviceService_ListLeftovers_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).ListLeftovers(ctx, &offloadv1.ListLeftoversRequest{})
		return err
	},
	offloadv1.DeviceService_SetEswitch_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).SetEswitch(ctx, &offloadv1.SetEswitchRequest{Device: "p0", Mode: offloadv1.EswitchMode_ESWITCH_MODE_LEGACY})
		return err
	},
	offloadv1.DeviceService_SetVFs_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).SetVFs(ctx, &offloadv1.SetVFsRequest{Device: nic.String(), Count: 4})
		return err
	},
	offloadv1.DeviceService_CreateFunction_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).CreateFunction(ctx, &offloadv1.CreateFunctionRequest{Device: "p0", Number: 7})
		return err
	},
	offloadv1.DeviceService_DeleteFunction_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).DeleteFunction(ctx, &offloadv1.DeleteFunctionRequest{Port: nic.Port(2).String()})
		return err
	},
	offloadv1.DeviceService_ReleaseFunction_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewDeviceServiceClient(c).ReleaseFunction(ctx, &offloadv1.ReleaseFunctionRequest{Port: nic.Port(2).String()})
		return err
	},
	offloadv1.ProbeService_ListPathKinds_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewProbeServiceClient(c).ListPathKinds(ctx, &offloadv1.ListPathKindsRequest{})
		return err
	},
	offloadv1.ProbeService_Run_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewProbeServiceClient(c).Run(ctx, &offloadv1.RunRequest{}))
	},
	offloadv1.ProbeService_RunPorts_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewProbeServiceClient(c).RunPorts(ctx, &offloadv1.RunPortsRequest{Spec: &offloadv1.PortProbeSpec{Client: "a", Server: "b"}}))
	},
	offloadv1.ProbeService_RunStarts_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewProbeServiceClient(c).RunStarts(ctx, &offloadv1.RunStartsRequest{Spec: &offloadv1.StartProbeSpec{Target: "a", Ports: []string{"b"}}}))
	},
	offloadv1.ProbeService_ListRuns_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewProbeServiceClient(c).ListRuns(ctx, &offloadv1.ListRunsRequest{})
		return err
	},
	offloadv1.ProbeService_GetRun_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		return drain(offloadv1.NewProbeServiceClient(c).GetRun(ctx, &offloadv1.GetRunRequest{}))
	},
	offloadv1.ProbeService_Clean_FullMethodName: func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := offloadv1.NewProbeServiceClient(c).Clean(ctx, &offloadv1.CleanRequest{})
		return err
	},
}

func drain[T any](stream grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Every method that the server has is in the table of methods, and only those that say by their name that they read may be
// called by others than root.
func TestMethods(t *testing.T) {
	s := NewServer(&behind{}, &behind{}, &behind{}, &behind{}, &behind{}, &behind{}, nil)
	served := map[string]bool{}
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			served[name] = true
			got, ok := methods[name]
			if !ok {
				t.Errorf("%s has no access", name)
			}
			readers := []string{"Get", "List", "Watch", "Check", "Trace", "Explain", "Diff", "ServerReflectionInfo"}
			byName := slices.ContainsFunc(readers, func(p string) bool { return strings.HasPrefix(m.Name, p) })
			if byName != (got == reads) {
				t.Errorf("%s: access %d", name, got)
			}
			if _, ok := calls[name]; !ok && strings.HasPrefix(name, "/offload.v1.") && !strings.HasPrefix(m.Name, "Watch") {
				t.Errorf("the tests do not call %s", name)
			}
		}
	}
	for name := range methods {
		if !served[name] {
			t.Errorf("%s is in the table, but not served", name)
		}
	}
	s.stop()
	s.grpc.Stop()
}

// snapshots is how many methods only show a feed, a snapshot or a table, and cannot fail behind the seam: ListDevices, ListFunctions,
// ListPools and ListPathKinds.
const snapshots = 4

// Every error of every method arrives with code, reason, metadata, fields and advice, and the client makes the same of it again.
func TestEveryError(t *testing.T) {
	s := serve(t)
	conn := s.dial(t)
	s.feed.Put(ports.Port{Spec: ports.Spec{Key: portKey(goodSpec().GetKey())}, State: ports.Ready})

	var behindSeam []string
	errs := []error{errors.New("plain"), context.DeadlineExceeded, fmt.Errorf("x: %w", context.Canceled)}
	for _, e := range reason.Table {
		err := reason.Errorf(e.Reason, "ports create: %w", io.ErrUnexpectedEOF).With("owner", "c2")
		if e.Reason == reason.InvalidField {
			err.Fields = []reason.Field{{Path: "spec.mtu", Cause: "1: too small"}, {Path: "spec.mac", Cause: "no"}}
		}
		errs = append(errs, fmt.Errorf("outer: %w", err))
	}
	for method, call := range calls {
		reached := false
		s.act = func(context.Context, string, any) error { reached = true; return nil }
		if err := call(soon(t), conn); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		if !reached {
			continue
		}
		behindSeam = append(behindSeam, method)
		s.feed.Put(ports.Port{Spec: ports.Spec{Key: portKey(goodSpec().GetKey())}, State: ports.Ready}) // Delete may have been
		for _, want := range errs {
			s.act = func(context.Context, string, any) error { return want }
			err := call(soon(t), conn)
			entry, _ := reason.Find(reason.Of(want))
			if got := status.Convert(err); uint32(got.Code()) != uint32(entry.Code) || got.Message() != want.Error() {
				t.Errorf("%s: %v arrives as %v", method, want, got)
			}
			back := client.Error(err)
			if reason.Of(back) != entry.Reason || back.Error() != want.Error() {
				t.Errorf("%s: %v comes back as %s, %v", method, want, reason.Of(back), back)
			}
			sent, _ := errors.AsType[*reason.Error](want)
			if got, ok := errors.AsType[*reason.Error](back); sent != nil && ok {
				if diff := cmp.Diff(sent.Metadata, got.Metadata) + cmp.Diff(sent.Fields, got.Fields); diff != "" {
					t.Errorf("%s: %v: sent -, got +:\n%s", method, want, diff)
				}
			}
			retry := slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
				_, ok := d.(*errdetails.RetryInfo)
				return ok
			})
			if retry != entry.Retry {
				t.Errorf("%s: %v: RetryInfo %v", method, want, retry)
			}
		}
	}
	if len(behindSeam) != len(calls)-snapshots {
		t.Errorf("only %v reach the seam", behindSeam)
	}
}

// stranger, if it is in the environment, has the test program call a server as somebody else.
const stranger = "OFFLOADD_TEST_CALL"

// beStranger calls every method and prints the reason with which each ends.
func beStranger() int {
	conn, err := client.Dial(os.Getenv(stranger))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for method, call := range calls {
		fmt.Println(method, reason.Of(client.Error(call(ctx, conn))))
	}
	return 0
}

// callAs runs the test program as uid and gid 65534, in no other group, and returns how each call ended, by method.
func callAsNobody(t *testing.T, path string) map[string]reason.Reason {
	t.Helper()
	self, err := os.Open("/proc/self/exe") // nobody may not go where the program is
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = []string{stranger + "=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nogroup, Gid: nogroup}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ended := map[string]reason.Reason{}
	for line := range strings.Lines(string(out)) {
		method, r, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		ended[method] = reason.Reason(r)
	}
	if len(ended) != len(calls) {
		t.Fatalf("%d calls, %d ended:\n%s", len(calls), len(ended), out)
	}
	return ended
}

// Others than root may read if they can connect, and nothing else.
func TestStranger(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can be somebody else")
	}
	s := serve(t)
	s.feed.Put(ports.Port{Spec: ports.Spec{Key: portKey(goodSpec().GetKey())}, State: ports.Ready})
	for method, r := range callAsNobody(t, s.path) {
		want := reason.Reason("")
		if methods[method] == writes {
			want = reason.PermissionDenied
		}
		if r != want {
			t.Errorf("%s: %q, want %q", method, r, want)
		}
	}
	if lines := s.log.lines("uid=65534"); len(lines) != len(calls) {
		t.Errorf("%d lines name the uid:\n%s", len(lines), lines)
	}
	if err := os.Chown(s.path, -1, 0); err != nil {
		t.Fatal(err)
	}
	for method, r := range callAsNobody(t, s.path) {
		if r != reason.DaemonUnreachable {
			t.Errorf("not in the group: %s: %q", method, r)
		}
	}
}

// Calls that write need a deadline, and those behind the seams have less time than the caller, so that the reason
// arrives in time.
func TestDeadlines(t *testing.T) {
	s := serve(t)
	conn := s.dial(t)
	for method, call := range calls {
		err := client.Error(call(t.Context(), conn))
		if methods[method] == writes && reason.Of(err) != reason.DeadlineRequired {
			t.Errorf("%s without deadline: %v", method, err)
		}
		if methods[method] == reads && reason.Of(err) == reason.DeadlineRequired {
			t.Errorf("%s: %v", method, err)
		}
	}
	s.act = func(ctx context.Context, _ string, _ any) error {
		<-ctx.Done()
		return reason.Errorf(reason.OVNNotInstalled, "ports create: %w", ctx.Err()).With("step", "claim")
	}
	for _, c := range []time.Duration{400 * time.Millisecond, 1600 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), c)
		started := time.Now()
		err := client.Error(calls[offloadv1.PortService_CreatePort_FullMethodName](ctx, conn))
		took := time.Since(started)
		cancel()
		e, _ := errors.AsType[*reason.Error](err)
		if reason.Of(err) != reason.OVNNotInstalled || e.Metadata["step"] != "claim" {
			t.Errorf("with %v: %v", c, err)
		}
		if took < c-answerMargin || took < c/2 || took > c {
			t.Errorf("with %v it took %v", c, took)
		}
	}
}

// A seam that panics costs one call.
func TestPanic(t *testing.T) {
	s := serve(t)
	conn := s.dial(t)
	s.act = func(context.Context, string, any) error { panic("a mistake") }
	s.feed.Put(ports.Port{Spec: ports.Spec{Key: portKey(goodSpec().GetKey())}, State: ports.Ready})
	n := 0
	for method, call := range calls {
		if err := client.Error(call(soon(t), conn)); err != nil {
			n++
			if reason.Of(err) != reason.Internal || !strings.Contains(err.Error(), "panic: a mistake") {
				t.Errorf("%s: %v", method, err)
			}
		}
	}
	lines := s.log.lines("level=ERROR")
	if n != len(calls)-snapshots || len(lines) != n || !strings.Contains(lines[0], "stack=") || !strings.Contains(lines[0], "harness_test.go") {
		t.Errorf("%d calls failed, %d errors in the log: %s", n, len(lines), lines)
	}
	s.act = nil
	for method, call := range calls {
		if err := call(soon(t), conn); err != nil && !strings.HasSuffix(method, "CheckPort") && !strings.HasSuffix(method, "GetPort") {
			t.Errorf("%s after the panic: %v", method, err)
		}
	}
}

// The log has a line for each call: who, what, how it ended.
func TestCallLog(t *testing.T) {
	s := serve(t)
	conn := s.dial(t)
	ctx := metadata.AppendToOutgoingContext(soon(t), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if err := calls[offloadv1.PortService_CreatePort_FullMethodName](ctx, conn); err != nil {
		t.Fatal(err)
	}
	s.act = func(context.Context, string, any) error {
		return reason.Errorf(reason.PortBusy, "ports delete: busy")
	}
	if err := calls[offloadv1.PortService_DeletePort_FullMethodName](soon(t), conn); err == nil {
		t.Fatal("Delete succeeds")
	}
	s.act = nil
	if err := calls[offloadv1.PortService_ListPorts_FullMethodName](soon(t), conn); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, want string }{
		{"CreatePort", fmt.Sprintf("level=INFO uid=%d pid=%d code=OK trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331 port=pods/c1/eth0 request_id=r1 lport=p1", os.Getuid(), os.Getpid())},
		{"DeletePort", `level=INFO code=Aborted reason=PORT_BUSY err="ports delete: busy" port=pods/c1/eth0`},
		{"ListPorts", "level=DEBUG code=OK"},
	} {
		lines := s.log.lines("/" + c.method)
		if len(lines) != 1 {
			t.Errorf("%s: %d lines", c.method, len(lines))
			continue
		}
		for word := range strings.SplitSeq(c.want, " ") {
			if !strings.Contains(lines[0], word) {
				t.Errorf("%s: no %s in %s", c.method, word, lines[0])
			}
		}
	}
}

func TestTraceContext(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for header, want := range map[string]bool{
		"00-" + trace + "-" + span + "-01":                        true,
		"01-" + trace + "-" + span + "-01-more":                   true,
		"ff-" + trace + "-" + span + "-01":                        false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":      false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":     false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":       false,
		"00-" + trace + "-" + span:                                false,
		"00-" + trace[1:] + "-" + span + "-01":                    false,
		"":                                                        false,
		"00-" + trace + "-" + strings.Repeat("x", 16) + "-01":     false,
		strings.Repeat("-", 10000):                                false,
		"00-" + trace + "-" + span + "-" + strings.Repeat("1", 9): false,
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", header))
		gotTrace, gotSpan, ok := traceContext(ctx)
		if ok != want || ok && (gotTrace != trace || gotSpan != span) {
			t.Errorf("%.80q: %s, %s, %v", header, gotTrace, gotSpan, ok)
		}
	}
}

func TestUnknownMethod(t *testing.T) {
	conn := serve(t).dial(t)
	for _, method := range []string{"/offload.v1.PortService/ResizePort", "/offload.v9.PortService/CreatePort"} {
		err := client.Error(conn.Invoke(soon(t), method, &offloadv1.GetInfoRequest{}, &offloadv1.GetInfoResponse{}))
		if reason.Of(err) != reason.VersionSkew {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestOversized(t *testing.T) {
	conn := serve(t).dial(t)
	spec := goodSpec()
	spec.Netns = "/" + strings.Repeat("x", maxRequest)
	_, err := offloadv1.NewPortServiceClient(conn).CreatePort(soon(t), &offloadv1.CreatePortRequest{Spec: spec})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of more than 1 MiB: %v", err)
	}
	if err := calls[offloadv1.PortService_ListPorts_FullMethodName](soon(t), conn); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// What is not gRPC costs its connection.
func TestGarbage(t *testing.T) {
	s := serve(t)
	for _, text := range []string{"GET / HTTP/1.0\r\n\r\n", "\x00\x01\x02", `{"method":"list-commands","params":[],"id":0}`, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000)} {
		c := s.dialRaw(t)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := calls[offloadv1.PortService_ListPorts_FullMethodName](soon(t), s.dial(t)); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

func TestDaemonUnreachable(t *testing.T) {
	conn, err := client.Dial(t.TempDir() + "/none.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for method, call := range calls {
		if err := client.Error(call(soon(t), conn)); reason.Of(err) != reason.DaemonUnreachable {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestHealth(t *testing.T) {
	s := serve(t)
	c := healthv1.NewHealthClient(s.dial(t))
	check := func(name string, want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := c.Check(soon(t), &healthv1.HealthCheckRequest{Service: name})
		if err != nil || r.GetStatus() != want {
			t.Errorf("%q: %v, %v; want %v", name, r.GetStatus(), err, want)
		}
	}
	const up, down = healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING
	stream, err := c.Watch(soon(t), &healthv1.HealthCheckRequest{Service: string(SubsystemSB)})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if r, err := stream.Recv(); err != nil || r.GetStatus() != want {
			t.Fatalf("watch: %v, %v; want %v", r.GetStatus(), err, want)
		}
	}
	next(down)
	for _, name := range Subsystems() {
		check(string(name), down)
		check("", down)
		s.server.SetHealth(Health{Subsystem: name})
		check(string(name), up)
	}
	check("", up)
	next(up)
	// What filters do not do Open vSwitch does.
	s.server.SetHealth(Health{Subsystem: SubsystemFilter, Reason: reason.KernelRefused, Message: "one of many"})
	check(string(SubsystemFilter), down)
	check("", up)
	s.server.SetHealth(Health{Subsystem: SubsystemFilter})
	s.server.SetHealth(Health{Subsystem: SubsystemSB, Reason: reason.SBDisconnected, Message: "gone"})
	next(down)
	check("", down)
	check(string(SubsystemOVS), up)
	if _, err := c.Check(soon(t), &healthv1.HealthCheckRequest{Service: "nonsense"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown name: %v", err)
	}

	// The status says the same, with reasons, and since when.
	since := map[string]time.Time{}
	for i := range 2 {
		r, err := offloadv1.NewNodeServiceClient(s.dial(t)).GetStatus(soon(t), &offloadv1.GetStatusRequest{})
		if err != nil || len(r.GetSubsystems()) != len(Subsystems()) {
			t.Fatal(r, err)
		}
		for _, sub := range r.GetSubsystems() {
			bad := sub.GetName() == string(SubsystemSB)
			if sub.GetServing() == bad || bad != (sub.GetReason() == "SB_DISCONNECTED" && sub.GetMessage() != "") {
				t.Errorf("%v", sub)
			}
			if when := sub.GetSince().AsTime(); i == 1 && !when.Equal(since[sub.GetName()]) {
				t.Errorf("%s: since %v, before %v", sub.GetName(), when, since[sub.GetName()])
			}
			since[sub.GetName()] = sub.GetSince().AsTime()
		}
		s.server.SetHealth(Health{Subsystem: SubsystemSB, Reason: reason.SBDisconnected, Message: "still"})
	}
}

// Streams end at once when the server stops, and say why; a call in progress may end.
func TestStop(t *testing.T) {
	s := serve(t)
	conn := s.dial(t)
	watch, err := offloadv1.NewPortServiceClient(conn).WatchPorts(t.Context(), &offloadv1.WatchPortsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	health, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	started, finish := make(chan struct{}), make(chan struct{})
	s.act = func(context.Context, string, any) error {
		close(started)
		<-finish
		return nil
	}
	created := make(chan error, 1)
	ctx := soon(t)
	go func() { created <- calls[offloadv1.PortService_CreatePort_FullMethodName](ctx, conn) }()
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	_, err = watch.Recv()
	if reason.Of(client.Error(err)) != reason.ShuttingDown {
		t.Errorf("the watch ends with %v", err)
	}
	for err = nil; err == nil; {
		_, err = health.Recv()
	}
	if reason.Of(client.Error(err)) != reason.ShuttingDown {
		t.Errorf("the watch of health ends with %v", err)
	}
	close(finish)
	if err := <-created; err != nil {
		t.Errorf("the call in progress ends with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
