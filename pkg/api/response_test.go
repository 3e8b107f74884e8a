package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/ports"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// All of an offload's state goes over the wire; when filters have not been computed, neither time does.
func TestOffloadMessage(t *testing.T) {
	when := time.Unix(1700000000, 0)
	for _, c := range []struct {
		state Offload
		want  *offloadv1.Offload
	}{
		{Offload{Mode: OffloadOff}, &offloadv1.Offload{Mode: offloadv1.OffloadMode_OFFLOAD_MODE_OFF}},
		{
			Offload{
				Mode: OffloadDirect, Idle: "why", Filters: 1, Devices: 2, States: 3, Closed: 4, Foreign: 5, Shadowed: 6,
				Refused: []RefusedFilter{{"a", "b"}, {"c", "d"}}, Computed: when, Took: time.Second, Error: "e", Turn: 7, AckedTurn: 8,
			},
			&offloadv1.Offload{
				Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DIRECT, Idle: "why", Filters: 1, Devices: 2, ChainStates: 3, Closed: 4, Foreign: 5,
				Shadowed: 6, Refused: []*offloadv1.RefusedFilter{{What: "a", Error: "b"}, {What: "c", Error: "d"}},
				Computed: timestamppb.New(when), Took: durationpb.New(time.Second), Error: "e", Turn: 7, AckedTurn: 8,
			},
		},
	} {
		if diff := cmp.Diff(c.want, statusMessage(Status{Offload: c.state}, nil).GetOffload(), protocmp.Transform()); diff != "" {
			t.Errorf("statusMessage of %+v (-want +got):\n%s", c.state, diff)
		}
	}
}

// All of a port's function goes over the wire.
func TestFunctionMessage(t *testing.T) {
	f := &device.Function{
		Handle: devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}.Port(32768), Kind: device.SF, PF: 1, Number: 88, Pool: "fast",
		Bus: "auxiliary", Device: "mlx5_core.sf.4", Representor: device.Link{Name: "pf1sf88", Index: 7}, NUMA: -1, Generation: 41,
	}
	got := portMessage(ports.Port{State: ports.Ready, Kind: ports.SF, FellBack: "why", HostInterface: "pf1sf88", Function: f}).GetStatus()
	want := &offloadv1.PortStatus{
		State: offloadv1.PortState_PORT_STATE_READY, Kind: offloadv1.PortKind_PORT_KIND_SF, FellBack: "why", HostInterface: "pf1sf88",
		Function: &offloadv1.PortFunction{
			Device: "mlx5_core.sf.4", Bus: "auxiliary", Pool: "fast", DevlinkPort: "pci/0000:03:00.0/32768", Pf: 1, Number: 88, Numa: -1, Generation: 41,
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := portMessage(ports.Port{State: ports.Ready, Kind: ports.Veth}).GetStatus(); got.Function != nil { //nolint:protogetter // absent is not empty
		t.Errorf("a veth has the function %v", got.GetFunction())
	}
}
