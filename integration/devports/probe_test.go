package devports

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// probe makes a run of the daemon's probe, and calls measuring when it has begun to measure.
func (r *deviceRig) probe(ctx context.Context, spec *offloadv1.ProbeSpec, measuring func()) (*result.Run, error) {
	r.T.Helper()
	conn, err := client.Dial(filepath.Join(r.node.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.Check(err)
	defer conn.Close()
	stream, err := offloadv1.NewProbeServiceClient(conn).Run(ctx, &offloadv1.RunRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		text.Write(m.GetRun())
		if m.GetProgress().GetSession() > 0 && measuring != nil {
			measuring()
			measuring = nil
		}
	}
	return report.Read(text.Bytes())
}

// qdiscs are those of devices of the NIC.
func (r *deviceRig) qdiscs() string {
	r.T.Helper()
	out, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
	r.Check(err)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "clsact") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// A probe's paths of functions have those of the pools that are free, with filters in hardware, and give them back as they were: at the end of a run, and
// when the daemon is killed in the middle of one. What there is too little of is missing.
func TestProbe(t *testing.T) {
	r := newDeviceRig(t)
	r.settle()
	before, qdiscs := home(t), r.qdiscs()
	load := []*offloadv1.ProbeLoad{{Size: 64}}
	// The baseline has a twin, so these are all four VFs, and one too many.
	run, err := r.probe(r.ctx, &offloadv1.ProbeSpec{Paths: []string{"vf", "vf,name=third", "sf"}, Loads: load, Sessions: 2, Count: 200}, func() {
		if got := r.show(kindVF); got != "USED USED USED USED" {
			t.Errorf("while the probe measures, VFs are %s", got)
		}
		if got := r.leftovers(); got != "" {
			t.Errorf("while the probe measures, these are left over:\n%s", got)
		}
	})
	r.Check(err)
	if len(run.Missing) != 1 || run.Missing[0].Kind != "vf" || !strings.Contains(run.Missing[0].Why, "no function is free") {
		t.Errorf("missing: %+v, want a third path of VFs", run.Missing)
	}
	var names []string
	functions := map[string]bool{}
	for _, p := range run.Paths {
		t.Logf("%s: %v", p.Name, p.Facts)
		names = append(names, p.Name)
		for _, side := range []string{"client ", "server "} {
			if f := p.Facts[side+"function"]; f == "" || functions[f] {
				t.Errorf("%s: the %sfunction is %q, and those before were %v", p.Name, side, f, functions)
			}
			functions[p.Facts[side+"function"]] = true
			if p.Facts[side+"driver"] == "" || p.Facts[side+"NIC"] != nic.Handle() {
				t.Errorf("%s: %sNIC %q, driver %q", p.Name, side, p.Facts[side+"NIC"], p.Facts[side+"driver"])
			}
		}
		// The simulated NIC takes filters, and leaves their packets to the host.
		want := "software, though hardware has the filters"
		if nic.Real() {
			want = "hardware"
		}
		if p.Facts["filters"] != "in hardware" || p.Facts["forwards by"] != want {
			t.Errorf("%s: filters %q, forwards by %q, want %q", p.Name, p.Facts["filters"], p.Facts["forwards by"], want)
		}
	}
	if got := strings.Join(names, " "); got != "vf vf-twin sf" {
		t.Errorf("paths %s", got)
	}
	for _, c := range run.Cases {
		for _, s := range c.Sessions {
			if s.Loss.Lost > 0 || s.Loss.Sent == 0 {
				t.Errorf("%s: %d of %d are lost", c.Path, s.Loss.Lost, s.Loss.Sent)
			}
		}
	}
	restored := func() {
		t.Helper()
		r.settle()
		r.wantClean()
		r.wantRestored(before)
		if got := r.qdiscs(); got != qdiscs {
			t.Errorf("qdiscs:\n%swere:\n%s", got, qdiscs)
		}
		if left, _ := filepath.Glob("/run/netns/opr*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	restored()

	// The daemon ends while packets pass: killed, and as it should.
	load[0].Duration = durationpb.New(time.Minute)
	for _, c := range []struct {
		sig  syscall.Signal
		left int // namespaces of pods
	}{{syscall.SIGKILL, 6}, {syscall.SIGTERM, 0}} {
		ctx, cancel := context.WithTimeout(r.ctx, lab.Patient(time.Minute))
		_, err = r.probe(ctx, &offloadv1.ProbeSpec{Paths: []string{"vf", "sf"}, Loads: load, Sessions: 1}, func() {
			r.Check(r.node.StopAgent(c.sig))
		})
		if err == nil || ctx.Err() != nil {
			t.Fatalf("%v: the run ended with %v, %v; want that its daemon has ended", c.sig, err, ctx.Err())
		}
		cancel()
		if left, _ := filepath.Glob("/run/netns/opr*-pod*"); len(left) != c.left {
			t.Errorf("%v: the daemon has left %v, want %d namespaces of pods", c.sig, left, c.left)
		}
		r.Check(r.node.StartAgent(lab.Offloadd))
		restored()
	}
}
