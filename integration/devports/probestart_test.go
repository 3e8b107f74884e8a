package devports

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// starts asks for a run of starts that VF q1 answers.
func (r *rig) starts(s *offloadv1.StartProbeSpec) (*result.Run, error) {
	r.T.Helper()
	conn, err := client.Dial(filepath.Join(r.node.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.Check(err)
	defer func() { r.Check(conn.Close()) }()
	ctx, cancel := context.WithTimeout(r.T.Context(), lab.Patient(5*time.Minute))
	defer cancel()
	s.Target, s.Wait, s.Interval = "q1", durationpb.New(lab.Patient(10*time.Second)), durationpb.New(10*time.Millisecond)
	stream, err := offloadv1.NewProbeServiceClient(conn).RunStarts(ctx, &offloadv1.RunStartsRequest{Spec: s})
	r.Check(err)
	var text []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, client.Error(err)
		}
		text = append(text, m.GetRun()...)
	}
	run, err := report.Read(text)
	r.Check(err)
	r.T.Log(report.Text(run, 0))
	return run, nil
}

// New ports are VFs, SFs and veths in one run. The NIC forwards packets of functions; the simulated one forwards none, which is said, and their packets are forwarded in software. A pool
// in which none is free is a reason to refuse. All functions are free again afterwards.
func TestProbeStart(t *testing.T) {
	r := newRig(t)
	target := spec(r.pods(1)[0], vf)
	r.mustCreate(target)
	defer r.mustDelete(target.GetKey())
	for _, kinds := range [][]offloadv1.PortKind{{vf, veth}, {sf}} {
		run, err := r.starts(&offloadv1.StartProbeSpec{Ports: []string{"q2", "q3"}, Kinds: kinds, Count: 2, Parallel: []uint32{1, 2}})
		r.Check(err)
		if len(run.Starts.Cases) != 2*len(kinds) {
			t.Errorf("%d cases", len(run.Starts.Cases))
		}
		for _, c := range run.Starts.Cases {
			wantStarts(t, &c)
		}
	}
	_, err := r.starts(&offloadv1.StartProbeSpec{Ports: []string{"q2", "q3", "q4", "q5"}, Kinds: []offloadv1.PortKind{vf}, Pool: "vfs", Count: 4, Parallel: []uint32{4}})
	if nic.Changeable() && (reason.Of(err) != reason.PoolExhausted || !strings.Contains(err.Error(), "vfs")) {
		t.Errorf("of a pool of four, one of which is used, four more: %v", err)
	}
	r.wantClean("q1")
}

// wantStarts is that all starts of a case came as far as this NIC lets them.
func wantStarts(t *testing.T, c *result.StartCase) {
	t.Helper()
	hardware := nic.Real() && c.Kind != "veth"
	for _, step := range []string{result.StepHardware, result.StepHardwareBack} {
		if (c.Never[step] == "") != hardware {
			t.Errorf("%s, %s: %q", c.Path, step, c.Never[step])
		}
	}
	for _, b := range c.Batches {
		for _, s := range b.Starts {
			t.Logf("%s: %+v", c.Path, s)
			if s.Failed != "" || s.Created <= 0 || s.Answered <= 0 || s.Deleted <= 0 || s.Requests.Unknown != "" || s.Answers.Unknown != "" {
				t.Errorf("%s: %+v", c.Path, s)
			}
			if c.Kind != "veth" && (s.Requests.Filters <= 0 || s.Answers.Filters <= 0) {
				t.Errorf("%s: filters do not forward both ways: %+v", c.Path, s)
			}
			if forwards := s.Requests.Hardware > 0 && s.Answers.Hardware > 0; forwards != hardware {
				t.Errorf("%s: %+v", c.Path, s)
			}
		}
	}
}
