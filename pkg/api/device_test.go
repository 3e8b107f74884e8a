package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

var nic = devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}

// An inventory is a device.Snapshot that tests change.
type inventory struct {
	mu       sync.Mutex
	snapshot device.Snapshot
	changed  chan struct{}
}

func (i *inventory) Snapshot() device.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.changed == nil {
		i.changed = make(chan struct{})
		i.snapshot.Revision = 1
		i.snapshot.Devices = []device.Status{{Handle: nic, Mode: devlink.ModeSwitchdev, Uplink: device.Link{Name: "p0", Index: 3}, NUMA: 1, VFs: 2, TotalVFs: 8}}
		i.snapshot.Functions = []device.FunctionStatus{vf(1, device.Used), vf(0, device.Free)}
		i.snapshot.Pools = []device.PoolStatus{{
			Pool: device.Pool{Name: "fast", Device: "p0", Kind: device.VF, RoCE: new(false), MaxIOEQs: 4}, Handle: nic, Capacity: 2, Counts: map[device.State]int{device.Free: 1, device.Used: 1},
		}}
	}
	s := i.snapshot
	s.Changed = i.changed
	s.Devices, s.Functions, s.Pools = slices.Clone(s.Devices), slices.Clone(s.Functions), slices.Clone(s.Pools)
	return s
}

func (i *inventory) change(f func(*device.Snapshot)) {
	s := i.Snapshot()
	i.mu.Lock()
	defer i.mu.Unlock()
	f(&s)
	s.Revision++
	close(i.changed)
	i.snapshot, i.changed = s, make(chan struct{})
}

func vf(n uint32, s device.State) device.FunctionStatus {
	f := device.FunctionStatus{State: s, Since: time.Unix(5, 0), Function: device.Function{
		Handle: nic.Port(n + 1), Kind: device.VF, Number: n, Pool: "fast", Bus: "pci", Device: fmt.Sprintf("0000:03:00.%d", n+1),
		Representor: device.Link{Name: fmt.Sprintf("p0_%d", n), Index: int(n) + 10}, NUMA: 1,
	}}
	if s == device.Used {
		f.Owner, f.Generation = fmt.Sprintf("pods/c%d/eth0", n), 40+uint64(n)
	}
	return f
}

func (b *behind) Snapshot() device.Snapshot   { return b.inventory.Snapshot() }
func (b *behind) Resource(pool string) string { return "offloadd.io/" + pool }

func (b *behind) Describe(ctx context.Context, h devlink.Handle) (DeviceDetails, error) {
	port := uint32(1)
	return DeviceDetails{
		Info:    &devlink.Info{Driver: "mlx5_core", Running: []devlink.Version{{Name: "fw.version", Value: "22.1"}}},
		Eswitch: devlink.Eswitch{Mode: devlink.ModeSwitchdev, Inline: devlink.InlineNone, Encap: devlink.EncapBasic},
		Reporters: []*devlink.Reporter{
			{ReporterHandle: h.Reporter("fw"), State: devlink.Healthy},
			{ReporterHandle: devlink.ReporterHandle{Handle: h, Port: &port, Name: "tx"}, State: devlink.Unhealthy, Errors: 3, Recoveries: 2, LastDump: 7e9},
		},
		Refused: []error{errors.New("devlink health show: no")},
	}, b.do(ctx, "Describe", h)
}

func (b *behind) Leftovers(ctx context.Context) ([]Leftover, error) {
	return []Leftover{{"link", "veth1", "of no port", "ip link del veth1"}, {"filter", "chain 5", "of others", ""}, {"filter", "chain 5", "of others", ""}}, b.do(ctx, "Leftovers", nil)
}

// inTheWay is a plan that a port stands in the way of.
var inTheWay = device.Plan{Steps: []string{"devlink dev eswitch set"}, Removes: []string{"pf0vf1"}, Affected: []string{"pods/c1/eth0"}}

func (b *behind) SetMode(ctx context.Context, _ devlink.Handle, m devlink.EswitchMode, dryRun bool) (device.Plan, error) {
	return b.plan, b.do(ctx, "SetMode", fmt.Sprint(m, dryRun))
}

func (b *behind) SetVFs(ctx context.Context, _ devlink.Handle, n int, dryRun bool) (device.Plan, error) {
	return b.plan, b.do(ctx, "SetVFs", fmt.Sprint(n, dryRun))
}

func (b *behind) CreateSF(ctx context.Context, h devlink.Handle, pf uint16, number uint32, dryRun bool) (device.Plan, devlink.PortHandle, error) {
	return b.plan, h.Port(9), b.do(ctx, "CreateSF", fmt.Sprint(pf, number, dryRun))
}

func (b *behind) DeleteSF(ctx context.Context, h devlink.PortHandle, dryRun bool) (device.Plan, error) {
	return b.plan, b.do(ctx, "DeleteSF", fmt.Sprint(h, dryRun))
}

func (b *behind) Recover(ctx context.Context, h devlink.PortHandle) error {
	return b.do(ctx, "Recover", h)
}

func TestDevices(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewDeviceServiceClient(s.dial(t))
	d, err := c.GetDevice(soon(t), &offloadv1.GetDeviceRequest{Device: "p0"})
	if err != nil {
		t.Fatal(err)
	}
	device1 := &offloadv1.Device{Handle: "pci/0000:03:00.0", Mode: offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV, Uplink: "p0", Numa: 1, Vfs: 2, TotalVfs: 8}
	want := &offloadv1.GetDeviceResponse{
		Device: device1, InlineMode: "none", EncapMode: "basic", Refused: []string{"devlink health show: no"},
		Info: &offloadv1.DeviceInfo{Driver: "mlx5_core", Running: []*offloadv1.DeviceVersion{{Name: "fw.version", Value: "22.1"}}},
		Reporters: []*offloadv1.HealthReporter{
			{Name: "fw", Healthy: true},
			{Name: "tx", Port: "pci/0000:03:00.0/1", Errors: 3, Recoveries: 2, LastDump: timestamp(time.Unix(7, 0))},
		},
	}
	if diff := cmp.Diff(want, d, protocmp.Transform()); diff != "" {
		t.Errorf("GetDevice: want -, got +:\n%s", diff)
	}
	list, err := c.ListDevices(soon(t), &offloadv1.ListDevicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*offloadv1.Device{device1}, list.GetDevices(), protocmp.Transform()); diff != "" {
		t.Errorf("ListDevices: want -, got +:\n%s", diff)
	}
	pools, err := c.ListPools(soon(t), &offloadv1.ListPoolsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*offloadv1.Pool{{
		Name: "fast", Device: "p0", Handle: "pci/0000:03:00.0", Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF, Capacity: 2,
		Counts: map[string]uint32{"FREE": 1, "USED": 1}, Resource: "offloadd.io/fast",
		Roce: new(false), MaxIoEqs: 4,
	}}, pools.GetPools(), protocmp.Transform()); diff != "" {
		t.Errorf("ListPools: want -, got +:\n%s", diff)
	}
	left, err := c.ListLeftovers(soon(t), &offloadv1.ListLeftoversRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*offloadv1.Leftover{
		{Where: "filter", Name: "chain 5", Cause: "of others"}, {Where: "link", Name: "veth1", Cause: "of no port", Remedy: "ip link del veth1"},
	}, left.GetLeftovers(), protocmp.Transform()); diff != "" {
		t.Errorf("ListLeftovers: want -, got +:\n%s", diff)
	}
}

func TestFunctionFilter(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewDeviceServiceClient(s.dial(t))
	for _, tt := range []struct {
		filter *offloadv1.FunctionFilter
		want   string
	}{
		{nil, "0 1"}, // in order
		{&offloadv1.FunctionFilter{Parent: "pci/0000:03:00.0", Pool: "fast", Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF}, "0 1"},
		{&offloadv1.FunctionFilter{States: []offloadv1.FunctionState{offloadv1.FunctionState_FUNCTION_STATE_USED}}, "1"},
		{&offloadv1.FunctionFilter{Owner: "pods/c1/eth0"}, "1"},
		{&offloadv1.FunctionFilter{Owner: "pods/c2/eth0"}, ""},
		{&offloadv1.FunctionFilter{Pool: "slow"}, ""},
		{&offloadv1.FunctionFilter{Parent: "pci/0000:04:00.0"}, ""},
		{&offloadv1.FunctionFilter{Kind: offloadv1.FunctionKind_FUNCTION_KIND_SF}, ""},
	} {
		r, err := c.ListFunctions(soon(t), &offloadv1.ListFunctionsRequest{Filter: tt.filter})
		if err != nil {
			t.Fatal(err)
		}
		var numbers []string
		for _, f := range r.GetFunctions() {
			numbers = append(numbers, fmt.Sprint(f.GetNumber()))
		}
		if got := strings.Join(numbers, " "); got != tt.want {
			t.Errorf("ListFunctions(%v) = %q, want %q", tt.filter, got, tt.want)
		}
	}
}

// A function without a representor has no port that could be named, and would otherwise have the name of port 0.
func TestFunctionWithoutPort(t *testing.T) {
	f := device.FunctionStatus{State: device.Warming, Function: device.Function{Handle: nic.Port(0), Kind: device.SF}}
	if m := functionStatusMessage(f); m.GetPort() != "" || m.GetParent() != nic.String() {
		t.Errorf("a function that is being made: %v", m)
	}
}

// An operation that ports stand in the way of is refused, with their names; one that is only asked about is planned.
func TestPlans(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewDeviceServiceClient(s.dial(t))
	var asked []any
	s.plan = inTheWay
	s.act = func(_ context.Context, method string, arg any) error {
		asked = append(asked, method, arg)
		return reason.Errorf(reason.FunctionsInUse, "device: functions of 1 ports would vanish")
	}
	switchdev := offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV
	for _, call := range []func(ctx context.Context, validate bool) (*offloadv1.Plan, error){
		func(ctx context.Context, validate bool) (*offloadv1.Plan, error) {
			r, err := c.SetEswitch(ctx, &offloadv1.SetEswitchRequest{Device: "p0", Mode: switchdev, ValidateOnly: validate})
			return r.GetPlan(), err
		},
		func(ctx context.Context, validate bool) (*offloadv1.Plan, error) {
			r, err := c.SetVFs(ctx, &offloadv1.SetVFsRequest{Device: "pci/0000:03:00.0", Count: 4, ValidateOnly: validate})
			return r.GetPlan(), err
		},
		func(ctx context.Context, validate bool) (*offloadv1.Plan, error) {
			r, err := c.CreateFunction(ctx, &offloadv1.CreateFunctionRequest{Device: "p0", Pf: 1, Number: 7, ValidateOnly: validate})
			if r.GetPort() != "" {
				t.Errorf("a port %s was made by asking", r.GetPort())
			}
			return r.GetPlan(), err
		},
		func(ctx context.Context, validate bool) (*offloadv1.Plan, error) {
			r, err := c.DeleteFunction(ctx, &offloadv1.DeleteFunctionRequest{Port: "pci/0000:03:00.0/2", ValidateOnly: validate})
			return r.GetPlan(), err
		},
	} {
		plan, err := call(soon(t), true)
		if diff := cmp.Diff(planMessage(inTheWay), plan, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("with validate_only: %v, want -, got +:\n%s", err, diff)
		}
		_, err = call(soon(t), false)
		var r *reason.Error
		if !errors.As(client.Error(err), &r) || r.Reason != reason.FunctionsInUse || r.Metadata["ports"] != "pods/c1/eth0" {
			t.Errorf("in earnest: %v %v, want FUNCTIONS_IN_USE of pods/c1/eth0", err, r)
		}
	}
	want := []any{
		"SetMode", "switchdev true", "SetMode", "switchdev false", "SetVFs", "4 true", "SetVFs", "4 false",
		"CreateSF", "1 7 true", "CreateSF", "1 7 false", "DeleteSF", "pci/0000:03:00.0/2 true", "DeleteSF", "pci/0000:03:00.0/2 false",
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("behind the seam: want -, got +:\n%s", diff)
	}
}

func TestInvalidDeviceRequests(t *testing.T) {
	s := serve(t)
	c := offloadv1.NewDeviceServiceClient(s.dial(t))
	s.act = func(_ context.Context, method string, _ any) error { t.Errorf("%s was called", method); return nil }
	for name, tt := range map[string]struct {
		err  error
		want reason.Reason
	}{
		"no device":         {second(c.GetDevice(soon(t), &offloadv1.GetDeviceRequest{})), reason.InvalidField},
		"other device":      {second(c.GetDevice(soon(t), &offloadv1.GetDeviceRequest{Device: "p7"})), reason.DeviceNotFound},
		"no mode":           {second(c.SetEswitch(soon(t), &offloadv1.SetEswitchRequest{Device: "p0"})), reason.InvalidField},
		"no mode of ours":   {second(c.SetEswitch(soon(t), &offloadv1.SetEswitchRequest{Device: "p0", Mode: 3})), reason.InvalidField},
		"too many VFs":      {second(c.SetVFs(soon(t), &offloadv1.SetVFsRequest{Device: "p0", Count: 1 << 16})), reason.InvalidField},
		"too large a PF":    {second(c.CreateFunction(soon(t), &offloadv1.CreateFunctionRequest{Device: "p0", Pf: 1 << 16})), reason.InvalidField},
		"no port":           {second(c.DeleteFunction(soon(t), &offloadv1.DeleteFunctionRequest{})), reason.InvalidField},
		"a device's handle": {second(c.ReleaseFunction(soon(t), &offloadv1.ReleaseFunctionRequest{Port: "pci/0000:03:00.0"})), reason.InvalidField},
		"no state":          {second(c.ListFunctions(soon(t), &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{States: make([]offloadv1.FunctionState, 1)}})), reason.InvalidField},
	} {
		if got := reason.Of(client.Error(tt.err)); got != tt.want {
			t.Errorf("%s: %v, want %s", name, tt.err, tt.want)
		}
	}
}

// A deviceReader knows what a watch has told it.
type deviceReader struct {
	known map[string]string // what it is by what it is called
	token string
}

func (r *deviceReader) apply(t *testing.T, m *offloadv1.WatchDevicesResponse) {
	t.Helper()
	if r.known == nil || m.GetType() == offloadv1.EventType_EVENT_TYPE_LOST {
		r.known = map[string]string{}
	}
	if m.GetResumeToken() != "" {
		r.token = m.GetResumeToken()
	}
	var name, is string
	switch {
	case m.GetDevice() != nil:
		name, is = m.GetDevice().GetHandle(), m.GetDevice().GetDoing()
	case m.GetFunction() != nil:
		name, is = fmt.Sprint("vf", m.GetFunction().GetNumber()), m.GetFunction().GetState().String()
	case m.GetPool() != nil:
		name, is = m.GetPool().GetName(), fmt.Sprint(m.GetPool().GetCapacity())
	}
	switch m.GetType() { //nolint:exhaustive // the others tell nothing
	case offloadv1.EventType_EVENT_TYPE_EXISTS, offloadv1.EventType_EVENT_TYPE_CHANGED:
		r.known[name] = is
	case offloadv1.EventType_EVENT_TYPE_DELETED:
		if _, ok := r.known[name]; !ok {
			t.Errorf("%s vanished, of which nothing was known", name)
		}
		delete(r.known, name)
	}
}

// until reads until the reader knows what there is.
func (r *deviceReader) until(t *testing.T, stream grpc.ServerStreamingClient[offloadv1.WatchDevicesResponse], s device.Snapshot) {
	t.Helper()
	want := map[string]string{}
	for _, d := range s.Devices {
		want[d.Handle.String()] = d.Doing
	}
	for _, f := range s.Functions {
		want[fmt.Sprint("vf", f.Number)] = "FUNCTION_STATE_" + string(f.State)
	}
	for _, p := range s.Pools {
		want[p.Name] = fmt.Sprint(p.Capacity)
	}
	for r.token == "" || !maps.Equal(r.known, want) {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("%v; knows %v, want %v", err, r.known, want)
		}
		r.apply(t, m)
	}
}

// A reader that follows, and breaks off and resumes now and then, knows what there is.
func TestWatchDevices(t *testing.T) {
	const seed = 4
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := serve(t)
	c := offloadv1.NewDeviceServiceClient(s.dial(t))
	r := &deviceReader{}
	for round := range 20 {
		ctx, cancel := context.WithCancel(soon(t))
		stream, err := c.WatchDevices(ctx, &offloadv1.WatchDevicesRequest{ResumeToken: r.token})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			s.inventory.change(func(s *device.Snapshot) { randomChange(rnd, s) })
			r.until(t, stream, s.inventory.Snapshot())
		}
		cancel()
		for range rnd.IntN(4) { // while nobody looks
			s.inventory.change(func(s *device.Snapshot) { randomChange(rnd, s) })
		}
		if t.Failed() {
			t.Fatalf("round %d, seed %d", round, seed)
		}
	}
}

func randomChange(rnd *rand.Rand, s *device.Snapshot) {
	switch n := uint32(rnd.IntN(6)); rnd.IntN(4) {
	case 0:
		s.Devices[0].Doing = fmt.Sprint(rnd.IntN(100))
	case 1:
		s.Functions = slices.DeleteFunc(s.Functions, func(f device.FunctionStatus) bool { return f.Number == n })
	default:
		s.Functions = slices.DeleteFunc(s.Functions, func(f device.FunctionStatus) bool { return f.Number == n })
		s.Functions = append(s.Functions, vf(n, pick(rnd, device.States()...)))
	}
	s.Pools[0].Capacity = len(s.Functions)
}

// Who resumes with what the feed does not know begins anew: a token of another process, or from before what has been forgotten.
func TestWatchDevicesLost(t *testing.T) {
	s := serve(t)
	feed := newDeviceFeed(s.behind)
	feed.keep = 2
	feed.catchUp()
	token := feed.token(feed.revision)
	for n := range uint32(8) {
		s.inventory.change(func(s *device.Snapshot) { s.Functions = append(s.Functions, vf(10+n, device.Free)) })
		feed.catchUp()
		s.inventory.change(func(s *device.Snapshot) { s.Functions = s.Functions[:2] })
		feed.catchUp()
	}
	revision, ok := feed.parse(token)
	if !ok {
		t.Fatalf("its own token %s is refused", token)
	}
	if _, _, ok := feed.since(revision); ok {
		t.Error("8 functions have vanished, 2 are remembered, and nothing is lost")
	}
	if things, _, ok := feed.since(feed.revision - 2); !ok || len(things) != 1 || !things[0].gone {
		t.Errorf("after the last but one revision: %v, %v, want the last function that vanished", things, ok)
	}
	if len(feed.vanished) > 2*feed.keep {
		t.Errorf("it remembers %d", len(feed.vanished))
	}
	for _, foreign := range []string{"x", newDeviceFeed(s.behind).token(1), feed.token(feed.revision + 1), feed.token(0)} {
		if _, ok := feed.parse(foreign); ok {
			t.Errorf("token %q is taken", foreign)
		}
	}
	stream, err := offloadv1.NewDeviceServiceClient(s.dial(t)).WatchDevices(soon(t), &offloadv1.WatchDevicesRequest{ResumeToken: token})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetType() != offloadv1.EventType_EVENT_TYPE_LOST {
		t.Fatalf("first comes %v, %v, want LOST", m, err)
	}
	r := &deviceReader{}
	r.until(t, stream, s.inventory.Snapshot())
}
