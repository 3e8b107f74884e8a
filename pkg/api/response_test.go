package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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
