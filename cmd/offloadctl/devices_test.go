package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const fakeNIC = "pci/0000:03:00.0"

var fakeDevices = []*offloadv1.Device{
	{Handle: fakeNIC, Mode: offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV, Uplink: "p0", Numa: 1, Vfs: 2, TotalVfs: 8, Doing: "making pf0sf101"},
	{
		Handle: "pci/0000:04:00.0", Mode: offloadv1.EswitchMode_ESWITCH_MODE_LEGACY, Numa: -1, TotalVfs: 16,
		Reason: "ESWITCH_NOT_SWITCHDEV", Message: "device pci/0000:04:00.0: the eswitch is in mode legacy",
	},
}

var fakeFunctions = []*offloadv1.Function{
	{
		Port: fakeNIC + "/1", Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF, Pool: "fast", Parent: fakeNIC, Device: "0000:03:00.2", Bus: "pci",
		Representor: "p0_0", Netdev: "p0v0", Numa: 1, State: offloadv1.FunctionState_FUNCTION_STATE_FREE, Since: since(time.Hour),
	},
	{
		Port: fakeNIC + "/2", Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF, Number: 1, Pool: "fast", Parent: fakeNIC, Device: "0000:03:00.3", Bus: "pci",
		Representor: "p0_1", Numa: 1, State: offloadv1.FunctionState_FUNCTION_STATE_QUARANTINED, Since: since(3 * time.Minute),
		Reason: "FUNCTION_NOT_RESTORED", Message: "device reset pci/0000:03:00.0/2 (pf0vf1): mac is x, not y",
	},
	{
		Port: fakeNIC + "/32768", Kind: offloadv1.FunctionKind_FUNCTION_KIND_SF, Number: 100, Pool: "many", Parent: fakeNIC, Device: "mlx5_core.sf.4", Bus: "auxiliary",
		Representor: "p0sf100", Numa: -1, State: offloadv1.FunctionState_FUNCTION_STATE_USED, Owner: "pods/c2/eth0", Since: since(time.Minute), Generation: 41,
	},
	{Kind: offloadv1.FunctionKind_FUNCTION_KIND_SF, Number: 101, Pool: "many", Parent: fakeNIC, Numa: -1, State: offloadv1.FunctionState_FUNCTION_STATE_WARMING},
}

var fakePools = []*offloadv1.Pool{
	{
		Name: "fast", Device: "p0", Handle: fakeNIC, Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF, Capacity: 2,
		Counts: map[string]uint32{"FREE": 1, "QUARANTINED": 1}, Resource: "offloadd.io/fast",
	},
	{
		Name: "many", Device: "p0", Handle: fakeNIC, Kind: offloadv1.FunctionKind_FUNCTION_KIND_SF, Capacity: 8, MinWarm: 1, MaxWarm: 2, Roce: new(false), MaxIoEqs: 4,
		Counts: map[string]uint32{"USED": 1, "WARMING": 1},
	},
	{
		Name: "none", Device: "p7", Kind: offloadv1.FunctionKind_FUNCTION_KIND_VF, Reason: "DEVICE_NOT_FOUND",
		Message: "there is no device p7 with an embedded switch",
	},
}

func (f *fake) ListDevices(context.Context, *offloadv1.ListDevicesRequest) (*offloadv1.ListDevicesResponse, error) {
	return &offloadv1.ListDevicesResponse{Devices: fakeDevices}, nil
}

func (f *fake) GetDevice(_ context.Context, req *offloadv1.GetDeviceRequest) (*offloadv1.GetDeviceResponse, error) {
	for _, d := range fakeDevices {
		if d.GetHandle() == req.GetDevice() || d.GetUplink() == req.GetDevice() {
			return &offloadv1.GetDeviceResponse{
				Device: d, InlineMode: "none", EncapMode: "basic",
				Info: &offloadv1.DeviceInfo{
					Driver: "mlx5_core", Serial: "MT1234", Fixed: []*offloadv1.DeviceVersion{{Name: "fw.psid", Value: "MT_0000000359"}},
					Running: []*offloadv1.DeviceVersion{{Name: "fw.version", Value: "22.41.1000"}}, Stored: []*offloadv1.DeviceVersion{{Name: "fw.version", Value: "22.42.0"}},
				},
				Reporters: []*offloadv1.HealthReporter{
					{Name: "fw", Healthy: true}, {Name: "tx", Port: fakeNIC + "/65535", Errors: 2, Recoveries: 1, LastDump: since(2 * time.Hour)},
				},
			}, nil
		}
	}
	return nil, refusal(codes.NotFound, reason.DeviceNotFound, fmt.Sprintf("api device %q: there is none with an embedded switch", req.GetDevice()), nil)
}

func (f *fake) ListFunctions(_ context.Context, req *offloadv1.ListFunctionsRequest) (*offloadv1.ListFunctionsResponse, error) {
	r := &offloadv1.ListFunctionsResponse{}
	filter := req.GetFilter()
	for _, fn := range fakeFunctions {
		if (len(filter.GetStates()) == 0 || slices.Contains(filter.GetStates(), fn.GetState())) && (filter.GetPool() == "" || filter.GetPool() == fn.GetPool()) &&
			(filter.GetKind() == 0 || filter.GetKind() == fn.GetKind()) {
			r.Functions = append(r.Functions, fn)
		}
	}
	return r, nil
}

func (f *fake) ListPools(context.Context, *offloadv1.ListPoolsRequest) (*offloadv1.ListPoolsResponse, error) {
	return &offloadv1.ListPoolsResponse{Pools: fakePools}, nil
}

// WatchDevices loses something, and ends.
func (f *fake) WatchDevices(_ *offloadv1.WatchDevicesRequest, s offloadv1.DeviceService_WatchDevicesServer) error {
	of := func(t offloadv1.EventType, item any) *offloadv1.WatchDevicesResponse {
		m := &offloadv1.WatchDevicesResponse{Type: t}
		switch item := item.(type) {
		case *offloadv1.Device:
			m.Item = &offloadv1.WatchDevicesResponse_Device{Device: item}
		case *offloadv1.Function:
			m.Item = &offloadv1.WatchDevicesResponse_Function{Function: item}
		case *offloadv1.Pool:
			m.Item = &offloadv1.WatchDevicesResponse_Pool{Pool: item}
		}
		return m
	}
	for _, e := range []*offloadv1.WatchDevicesResponse{
		of(offloadv1.EventType_EVENT_TYPE_EXISTS, fakeDevices[0]),
		of(offloadv1.EventType_EVENT_TYPE_EXISTS, fakeFunctions[2]),
		of(offloadv1.EventType_EVENT_TYPE_EXISTS, fakePools[1]),
		of(offloadv1.EventType_EVENT_TYPE_SYNCED, nil),
		of(offloadv1.EventType_EVENT_TYPE_CHANGED, fakeFunctions[1]),
		of(offloadv1.EventType_EVENT_TYPE_HEARTBEAT, nil),
		of(offloadv1.EventType_EVENT_TYPE_LOST, nil),
		of(offloadv1.EventType_EVENT_TYPE_EXISTS, fakeDevices[1]),
		of(offloadv1.EventType_EVENT_TYPE_SYNCED, nil),
		of(offloadv1.EventType_EVENT_TYPE_DELETED, fakeDevices[1]),
	} {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) ListLeftovers(context.Context, *offloadv1.ListLeftoversRequest) (*offloadv1.ListLeftoversResponse, error) {
	if f.tidy {
		return &offloadv1.ListLeftoversResponse{}, nil
	}
	return &offloadv1.ListLeftoversResponse{Leftovers: []*offloadv1.Leftover{
		{Where: "filter", Name: "chain 0 pref 9 handle 0x1 protocol ip flower action drop", Cause: "somebody else has put it where ours are; it is left alone"},
		{Where: "function", Name: "pci/0000:03:00.0/2 (pf0vf1)", Cause: "quarantined: FUNCTION_NOT_RESTORED: a\nb", Remedy: "offloadctl device release pci/0000:03:00.0/2"},
		{Where: "interface", Name: "veth1234", Cause: "of no port; its mark says x", Remedy: "ovs-vsctl --if-exists del-port veth1234"},
		{Where: "kubelet", Name: "default/web/main", Cause: "it has been given offloadd.io/fast 0000:03:00.2, which no port has"},
	}}, nil
}

// SetEswitch finds a port in the way.
func (f *fake) SetEswitch(_ context.Context, req *offloadv1.SetEswitchRequest) (*offloadv1.SetEswitchResponse, error) {
	mode := strings.ToLower(strings.TrimPrefix(req.GetMode().String(), "ESWITCH_MODE_"))
	if mode == "switchdev" {
		return &offloadv1.SetEswitchResponse{Plan: &offloadv1.Plan{}}, nil
	}
	if !req.GetValidateOnly() {
		return nil, refusal(codes.FailedPrecondition, reason.FunctionsInUse, "device "+fakeNIC+": functions of 1 ports would vanish", map[string]string{"ports": "pods/c2/eth0"})
	}
	return &offloadv1.SetEswitchResponse{Plan: &offloadv1.Plan{
		Steps: []string{"devlink dev eswitch set " + fakeNIC + " mode " + mode}, Removes: []string{fakeNIC + "/1 (pf0vf0)", fakeNIC + "/32768 (pf0sf100)"},
		Affected: []string{"pods/c2/eth0"},
	}}, nil
}

func (f *fake) SetVFs(_ context.Context, req *offloadv1.SetVFsRequest) (*offloadv1.SetVFsResponse, error) {
	if !req.GetValidateOnly() {
		f.done = append(f.done, fmt.Sprint("vfs ", req.GetDevice(), " ", req.GetCount()))
	}
	file := "/sys/bus/pci/devices/0000:03:00.0/sriov_numvfs"
	return &offloadv1.SetVFsResponse{Plan: &offloadv1.Plan{
		Steps: []string{"echo 0 > " + file, fmt.Sprintf("echo %d > %s", req.GetCount(), file)}, Removes: []string{fakeNIC + "/1 (pf0vf0)", fakeNIC + "/2 (pf0vf1)"},
	}}, nil
}

func (f *fake) CreateFunction(_ context.Context, req *offloadv1.CreateFunctionRequest) (*offloadv1.CreateFunctionResponse, error) {
	r := &offloadv1.CreateFunctionResponse{Plan: &offloadv1.Plan{Steps: []string{
		fmt.Sprintf("devlink port add %s flavour pcisf pfnum %d sfnum %d", fakeNIC, req.GetPf(), req.GetNumber()),
	}}}
	if !req.GetValidateOnly() {
		r.Port = fakeNIC + "/32770"
	}
	return r, nil
}

func (f *fake) DeleteFunction(_ context.Context, req *offloadv1.DeleteFunctionRequest) (*offloadv1.DeleteFunctionResponse, error) {
	if !req.GetValidateOnly() {
		f.done = append(f.done, "delete "+req.GetPort())
	}
	return &offloadv1.DeleteFunctionResponse{Plan: &offloadv1.Plan{Steps: []string{"devlink port del " + req.GetPort()}}}, nil
}

func (f *fake) ReleaseFunction(_ context.Context, req *offloadv1.ReleaseFunctionRequest) (*offloadv1.ReleaseFunctionResponse, error) {
	if req.GetPort() == fakeNIC+"/2" {
		return nil, refusal(codes.FailedPrecondition, reason.FunctionNotRestored, "device recover "+req.GetPort()+": mac is x, not y", nil)
	}
	return &offloadv1.ReleaseFunctionResponse{Function: fakeFunctions[0]}, nil
}

// Nothing is done unless the user says so: neither without an answer, nor with another one, nor on a dry run.
func TestConfirmation(t *testing.T) {
	for _, tt := range []struct {
		args, stdin string
		done        bool
		code        int
	}{
		{"--dry-run", "y\n", false, 0},
		{"--dry-run --yes", "", false, 0},
		{"", "", false, 1},
		{"", "\n", false, 1},
		{"", "n\n", false, 1},
		{"", "yesterday\n", false, 1},
		{"", "y\n", true, 0},
		{"", "YES\n", true, 0},
		{"--yes", "", true, 0},
		{"--yes -o json", "", true, 0},
	} {
		f := newFake()
		s := shell{t: t, socket: f.serve(t), env: map[string]string{"STDIN": tt.stdin}}
		stdout, stderr, code := s.run(append([]string{"device", "vfs", "p0", "4"}, strings.Fields(tt.args)...)...)
		want := []string(nil)
		if tt.done {
			want = []string{"vfs p0 4"}
		}
		if code != tt.code || !slices.Equal(f.done, want) {
			t.Errorf("%q with %q: exit code %d, want %d; done %q, want %q\n%s%s", tt.args, tt.stdin, code, tt.code, f.done, want, stdout, stderr)
		}
	}
}

// An audit that finds nothing says yes.
func TestTidy(t *testing.T) {
	f := newFake()
	f.tidy = true
	s := shell{t: t, socket: f.serve(t)}
	if _, stderr, code := s.run("audit"); code != 0 {
		t.Errorf("audit: exit code %d\n%s", code, stderr)
	}
	if stdout, stderr, code := s.run("gc", "--dry-run"); code != 0 || stdout != "" {
		t.Errorf("gc: exit code %d\n%s%s", code, stdout, stderr)
	}
}
